"""The log of documents that were added, replaced and deleted while serving: on disk before anybody is told so.

One file, ``documents.log``: a head, then records of one request each, written whole behind a length and a checksum and
synchronised before :meth:`Journal.append` returns. A record that a crash tore is no record: readers stop before it, and
the next writer cuts it off. Writers of all replicas and nodes take turns by a lock file; readers look at the end of the
file whenever they search, so that what one replica acknowledged, every replica finds.

A record is an Arrow IPC stream, mapped and not read into memory, so that texts cost none.
"""

import logging
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

log = logging.getLogger(__name__)

LOG, LOCK = "documents.log", "documents.lock"
MAGIC = b"RANKLOG1"
_HEAD = struct.Struct("<8s8s")  # magic, generation: random, another one after a compaction
_RECORD = struct.Struct("<QII")  # bytes that follow, their CRC-32, CRC-32 of the length
ALIGNMENT = 64  # of Arrow's buffers
LOCK_TIMEOUT_S, LOCK_POLL_S = 10.0, 0.005
PUT, DELETE = b"put", b"delete"
# A log is written anew when it has this many bytes at least, and fewer than half of its rows count.
SMALLEST_COMPACTION = 4 * 2**20
ROWS_AT_ONCE = 1024


class JournalError(RuntimeError):
    """A log that cannot be written or read; the message names the file and the remedy."""


@dataclass(frozen=True)
class Place:
    """Where a row of the log lies: the record's first byte, its length, the row in it."""

    start: int
    length: int
    row: int


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
        self.num_rows = 0

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

    def append(
        self, doc_ids: Sequence[str], titles: Sequence[str | None], texts: Sequence[str],
        vectors: NDArray[np.float32], encoder: str,
    ) -> None:  # fmt: skip
        """Write documents that take the place of those with the same ids; on disk when this returns.

        Raises:
            JournalError: where they could not be written; nothing of them is left then.
        """
        self._write(_puts(doc_ids, titles, texts, vectors, encoder))

    def delete(self, doc_ids: Sequence[str]) -> None:
        """Write that these documents are gone. Errors as in :meth:`append`."""
        batch = pa.record_batch({"doc_id": pa.array(doc_ids, pa.string())})
        self._write(batch.replace_schema_metadata({b"op": DELETE, b"encoder": b""}))

    def row(self, place: Place) -> tuple[str | None, str]:
        """(title, text) of a document that was put."""
        batch = self._batch(place)
        return batch["title"][place.row].as_py(), batch["text"][place.row].as_py()

    def _forget(self, generation: bytes) -> None:
        self._again = self._again or bool(self._generation)
        self._generation, self._end, self.places, self.num_rows, self._map = generation, _HEAD.size, {}, 0, None
        self._unseen = []

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
        if size < _HEAD.size:
            raise JournalError(f"{self.file}: not a log of documents; move it away")
        magic, generation = _HEAD.unpack(os.pread(descriptor, _HEAD.size, 0))
        if magic != MAGIC:
            raise JournalError(f"{self.file}: not a log of documents; move it away")
        if generation != self._generation:
            self._forget(generation)
        before = self._end
        for place, body in _records(descriptor, before, size):
            self._unseen.append(self._take(place, body))
        if self._end > before:
            # Only what is whole is mapped: what follows may be cut off, and touching it then would kill the process.
            self._map = mmap.mmap(descriptor, self._end, access=mmap.ACCESS_READ)

    def _take(self, place: Place, body: bytes) -> Change:
        batch = pa.ipc.open_stream(body).read_next_batch()
        doc_ids, meta = batch["doc_id"].to_pylist(), batch.schema.metadata
        put = meta[b"op"] == PUT
        for row, doc_id in enumerate(doc_ids):
            self.places[doc_id] = Place(place.start, place.length, row) if put else None
        self.num_rows += len(doc_ids)
        self._end = place.start + place.length
        return Change(place, doc_ids, _vectors(batch) if put else None, meta[b"encoder"].decode())

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
                    _replace(self.file, _HEAD.pack(MAGIC, os.urandom(8)))
                    self._read_on()
                with self.file.open("r+b") as stream:
                    _append(stream.fileno(), self._end, _encoded(batch, self._end))
                self._read_on()
                if self._is_mostly_old():
                    self._compact()
        except Timeout:
            raise JournalError(f"{self.folder / LOCK}: held by another writer; try again") from None
        except OSError as error:
            raise JournalError(f"{self.file}: cannot be written: {error.strerror or error}") from error

    def _is_mostly_old(self) -> bool:
        return self._end >= self._smallest and 2 * len(self.places) < self.num_rows

    def _compact(self) -> None:
        """The same log without what was replaced; under the lock, by renaming a whole one."""
        before, head = self._end, _HEAD.pack(MAGIC, os.urandom(8))
        temporary = self.file.with_suffix(".tmp")
        with temporary.open("wb") as stream:
            stream.write(head)
            for batch in self._living():
                stream.write(_encoded(batch, stream.tell()))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.file)
        _sync_folder(self.folder)
        log.info("%s: written anew, %d bytes instead of %d", self.file, self.file.stat().st_size, before)

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
            batch = pa.record_batch({"doc_id": pa.array(gone, pa.string())})
            yield batch.replace_schema_metadata({b"op": DELETE, b"encoder": b""})


def _puts(
    doc_ids: Sequence[str], titles: Sequence[str | None], texts: Sequence[str],
    vectors: NDArray[np.float32], encoder: str,
) -> pa.RecordBatch:  # fmt: skip
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    batch = pa.record_batch({
        "doc_id": pa.array(doc_ids, pa.string()),
        "title": pa.array(titles, pa.string()),
        "text": pa.array(texts, pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    })  # fmt: skip
    return batch.replace_schema_metadata({b"op": PUT, b"encoder": encoder.encode()})


def _vectors(batch: pa.RecordBatch) -> NDArray[np.float32]:
    column = batch["embedding"]
    return np.array(column.flatten(), dtype=np.float32).reshape(len(column), -1)


def _encoded(batch: pa.RecordBatch, start: int) -> bytes:
    """A record as it stands at byte ``start``: padding, its head, and the batch, which begins aligned."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    body = sink.getvalue().to_pybytes()
    length = struct.pack("<Q", len(body))
    padding = -(start + _RECORD.size) % ALIGNMENT
    return bytes(padding) + _RECORD.pack(len(body), zlib.crc32(body), zlib.crc32(length)) + body


def _records(descriptor: int, start: int, end: int) -> Iterator[tuple[Place, bytes]]:
    """The whole records from ``start`` on; the first that is torn, or not yet written, ends it."""
    while True:
        head = start + (-(start + _RECORD.size) % ALIGNMENT)
        body = head + _RECORD.size
        if body > end:
            return
        length, checksum, check = _RECORD.unpack(os.pread(descriptor, _RECORD.size, head))
        if zlib.crc32(struct.pack("<Q", length)) != check or body + length > end:
            return
        content = _read(descriptor, length, body)
        if zlib.crc32(content) != checksum:
            return
        yield Place(body, length, 0), content
        start = body + length


def _read(descriptor: int, length: int, start: int) -> bytes:
    content = b""
    while len(content) < length and (more := os.pread(descriptor, length - len(content), start + len(content))):
        content += more
    return content


def _append(descriptor: int, end: int, record: bytes) -> None:
    """Write at ``end``, behind which only a torn record can be, and synchronise."""
    os.ftruncate(descriptor, end)
    try:
        written = 0
        while written < len(record):
            written += os.pwrite(descriptor, record[written:], end + written)
    except OSError:
        os.ftruncate(descriptor, end)
        raise
    # Where this fails, the record stays: others may have read it. Its writer is told, and may send it again.
    os.fsync(descriptor)


def _replace(file: Path, content: bytes) -> None:
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    """A new name is on the disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
