"""The log of documents that were added, replaced and deleted while serving: on disk before anybody is told so.

One file, ``documents.log``: a head, then records of one request each, written whole behind a length and a checksum and
synchronised before :meth:`Journal.append` returns. A record that a crash tore is no record: readers stop before it, and
the next writer sets it aside, with all behind it, as ``documents.log.cut-<time>``. Writers of all replicas and nodes
take turns by a lock file; readers look at the end of the file whenever they search, so that what one replica
acknowledged, every replica finds.

A record is an Arrow IPC stream, mapped and not read into memory, so that texts cost none.
"""

import logging
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ranker.serving.errors import LOGGER
from ranker.serving.records import (
    HEAD,
    HEAD_BYTES,
    MAGIC,
    PUT,
    Place,
    deletion,
    encode,
    new_head,
    puts,
    read_records,
    replace_file,
    vectors_of,
    write_at,
)

log = logging.getLogger(LOGGER)

LOG, LOCK = "documents.log", "documents.lock"
LOCK_TIMEOUT_S, LOCK_POLL_S = 10.0, 0.005
# A log is written anew when it has this many bytes at least, and fewer than half of the documents put into it count.
SMALLEST_COMPACTION = 4 * 2**20


class JournalError(RuntimeError):
    """A log that cannot be written or read; the message names the file and the remedy."""


@dataclass(frozen=True)
class Change:
    """One record. ``vectors`` are those that ``encoder`` made, None for deletions."""

    place: Place
    doc_ids: list[str]
    vectors: NDArray[np.float32] | None
    encoder: str


class Journal:
    """The log in a folder, as far as this process has read it.

    Not for several threads at once.

    Args:
        folder: made by the first writer; without it the log is empty.
        smallest_compaction: bytes from which on a log is written anew.
    """

    def __init__(self, folder: Path, smallest_compaction: int = SMALLEST_COMPACTION) -> None:
        self.folder, self._smallest = folder, smallest_compaction
        self.file = folder / LOG
        self._generation = b""
        self._end = 0
        self._map: mmap.mmap | None = None
        self._again, self._unseen = False, list[Change]()
        self.places: dict[str, Place | None] = {}  # None: deleted
        self.num_living = self.num_put = 0  # ids that are not deleted; rows that were put, replaced ones too

    def refresh(self) -> tuple[bool, list[Change]]:
        """What was written since the last call, by this process and others.

        Returns:
            Whether the log is another one than before (all of it follows then), and the new records in order.

        Raises:
            JournalError: where the file cannot be read, or is no log.
        """
        self._read_on()
        again, self._again = self._again, False
        changes, self._unseen = self._unseen, []
        return again, changes

    def read_again(self) -> None:
        """Let the next :meth:`refresh` tell of the whole log, as of another one."""
        self._forget(b"")

    def append(
        self, doc_ids: Sequence[str], titles: Sequence[str | None], texts: Sequence[str],
        vectors: NDArray[np.float32], encoder: str,
    ) -> None:  # fmt: skip
        """Write documents that take the place of those with the same ids; on disk when this returns.

        Raises:
            JournalError: where they could not be written; nothing of them is left then.
        """
        self._write(puts(doc_ids, titles, texts, vectors, encoder))

    def delete(self, doc_ids: Sequence[str]) -> None:
        """Write that these documents are gone. Errors as in :meth:`append`."""
        self._write(deletion(doc_ids))

    def row(self, place: Place) -> tuple[str | None, str]:
        """(title, text) of a document that was put."""
        batch = self._batch(place)
        return batch["title"][place.row].as_py(), batch["text"][place.row].as_py()

    def _forget(self, generation: bytes) -> None:
        self._again = self._again or bool(self._generation)
        self._generation, self._end, self._map = generation, HEAD_BYTES, None
        self.places, self.num_living, self.num_put, self._unseen = {}, 0, 0, []

    def _read_on(self) -> None:
        try:
            with self.file.open("rb") as stream:
                self._read_from(stream.fileno())
        except FileNotFoundError:
            if self._generation:
                self._forget(b"")
        except (OSError, pa.ArrowInvalid) as error:
            raise JournalError(f"{self.file}: cannot be read: {error}") from error

    def _read_from(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if size < HEAD_BYTES:
            raise JournalError(f"{self.file}: not a log of documents; move it away")
        magic, generation = HEAD.unpack(os.pread(descriptor, HEAD_BYTES, 0))
        if magic != MAGIC:
            raise JournalError(f"{self.file}: not a log of documents; move it away")
        if generation != self._generation:
            self._forget(generation)
        before = self._end
        for place, body in read_records(descriptor, before, size):
            self._unseen.append(self._take(place, body))
        if self._end > before:
            # Only what is whole is mapped: what follows may be cut off, and touching it then would kill the process.
            self._map = mmap.mmap(descriptor, self._end, access=mmap.ACCESS_READ)

    def _take(self, place: Place, body: bytes) -> Change:
        batch = pa.ipc.open_stream(body).read_next_batch()
        doc_ids, meta = batch["doc_id"].to_pylist(), batch.schema.metadata
        put = meta[b"op"] == PUT
        for row, doc_id in enumerate(doc_ids):
            self.num_living += put - (self.places.get(doc_id) is not None)
            self.places[doc_id] = Place(place.start, place.length, row) if put else None
        self.num_put += len(doc_ids) if put else 0
        self._end = place.start + place.length
        return Change(place, doc_ids, vectors_of(batch) if put else None, meta[b"encoder"].decode())

    def _batch(self, place: Place) -> pa.RecordBatch:
        if self._map is None:
            raise JournalError(f"{self.file}: was closed")
        body = pa.py_buffer(self._map).slice(place.start, place.length)
        return pa.ipc.open_stream(body).read_next_batch()

    def _write(self, batch: pa.RecordBatch) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / LOCK).acquire(LOCK_TIMEOUT_S, poll_interval=LOCK_POLL_S):
                self._read_on()
                if not self._generation:
                    replace_file(self.file, new_head())
                    self._read_on()
                self._cut_off()
                with self.file.open("r+b") as stream:
                    write_at(stream.fileno(), self._end, encode(batch, self._end))
                self._read_on()
                if self._is_mostly_old():
                    self._compact()
        except Timeout:
            raise JournalError(f"{self.folder / LOCK}: held by another writer; try again") from None
        except OSError as error:
            raise JournalError(f"{self.file}: cannot be written: {error.strerror or error}") from error

    def _is_mostly_old(self) -> bool:
        return self._end >= self._smallest and 2 * self.num_living < self.num_put

    def _cut_off(self) -> None:
        """Set aside what stands behind the last whole record, and write the log anew without it.

        Mostly a crash tore it, and nobody was told that it is there. Where the disk spoilt an older record, those
        behind it were acknowledged, and other processes may have read them: they see that the log is another one.
        """
        rest = self.file.stat().st_size - self._end
        if rest <= 0:
            return
        aside = self.file.with_name(f"{LOG}.cut-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
        with self.file.open("rb") as stream:
            stream.seek(self._end)
            replace_file(aside, iter(lambda: stream.read(2**20), b""))
        log.warning(
            "%s: no whole record at byte %d; the %d bytes from there on are set aside as %s. If a crash tore one "
            "record, it was never acknowledged; if there are more, documents may be missing",
            self.file, self._end, rest, aside.name,
        )  # fmt: skip
        self._compact()
        self._read_on()

    def _compact(self) -> None:
        """The same log without what was replaced; under the lock, by renaming a whole one."""
        before = self._end
        replace_file(self.file, self._anew())
        log.info("%s: written anew, %d bytes instead of %d", self.file, self.file.stat().st_size, before)

    def _anew(self) -> Iterator[bytes]:
        head = new_head()
        yield head
        end = len(head)
        for batch in self._living():
            record = encode(batch, end)
            yield record
            end += len(record)

    def _living(self) -> Iterator[pa.RecordBatch]:
        records: dict[int, tuple[Place, list[int]]] = {}
        gone = [doc_id for doc_id, place in self.places.items() if place is None]
        for place in self.places.values():
            if place is not None:
                records.setdefault(place.start, (place, []))[1].append(place.row)
        for place, rows in records.values():
            batch = self._batch(place)
            yield batch.take(pa.array(rows)).replace_schema_metadata(batch.schema.metadata)
        if gone:
            yield deletion(gone)


def check_writable(folder: Path) -> None:
    """Return where a log of documents can be kept in this folder, which need not be there yet.

    Raises:
        JournalError: where it cannot, with the remedies.
    """
    place = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
        if (folder / LOG).exists():
            (folder / LOG).open("r+b").close()
    except OSError as error:
        raise JournalError(
            f"{folder}: added documents cannot be written there ({error.strerror or error}); name another folder "
            "(documents: ... in args), or say writable: false there"
        ) from error


def warn_of_unread(folder: Path, index: Path) -> None:
    """Say in the log where added documents lie that nobody reads.

    Unsaid, a log lies beside the index, so where ``args.index`` moved, what was added seems to have vanished.
    """
    if (folder / LOG).exists():
        return
    unread = sorted(str(found) for found in index.parent.parent.glob(f"*/documents/{LOG}"))
    if unread:
        log.warning(
            "%s holds no added documents, and these logs of some are not read: %s; if they belong to this index, name "
            "their folder (documents: ... in args)",
            folder, ", ".join(unread),
        )  # fmt: skip
