"""A piece of a source as Parquet parts on disk, and what can be said of all parts without reading their texts again.

Beside a part of documents lie the 64-bit hashes of its ids, sorted. Ids that occur twice are found by going through
all of them one range of hashes at a time, so that no more than RANGE_ROWS are in memory however many there are.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.data.errors import DataError, Mistakes
from ranker.data.pieces import Piece
from ranker.schemas import SchemaError

PART_ROWS = 50_000
PART_BYTES = 128 * 2**20
RANGE_ROWS = 500_000
REPORT = "report.json"
HASHES = ".hashes.npy"

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class PieceReport:
    """What became of a piece.

    Args:
        parts: its files in order. rows: of all of them. mistakes: the first ones. count: how many there were.
    """

    parts: tuple[Path, ...]
    rows: int
    mistakes: tuple[str, ...]
    count: int


def write_piece(piece: Piece, folder: Path, number: int, schema: pa.Schema, hashed: bool) -> PieceReport:
    """Write a piece below ``folder``, whole or not at all; one that is there already is not read again.

    Args:
        hashed: keep the hashes of its first column.
    """
    done = piece_folder(folder, number)
    if not is_done(done):
        # A name of its own: Ray may run a task again while the first one still writes.
        work = Path(tempfile.mkdtemp(dir=folder, prefix=f".piece-{number:06d}-"))
        mistakes = Mistakes(str(number))
        rows = 0
        try:
            rows = _write_parts(piece.tables(mistakes), work, schema, hashed)
        except (DataError, SchemaError) as error:
            mistakes.add("", str(error))
        names = sorted(file.name for file in work.glob("*.parquet"))
        report = {"parts": names, "rows": rows, "mistakes": mistakes.found, "count": mistakes.count}
        (work / REPORT).write_text(json.dumps(report))
        _give_name(work, done)
    return read_report(done)


def piece_folder(folder: Path, number: int) -> Path:
    """Where a piece lies once it is whole."""
    return folder / f"piece-{number:06d}"


def is_done(done: Path) -> bool:
    """Whether a piece is whole: its report is the last that comes and the first that goes."""
    return (done / REPORT).is_file()


def _give_name(work: Path, done: Path) -> None:
    if done.exists() and not is_done(done):  # what a removal that was interrupted has left
        shutil.rmtree(done)
    try:
        work.rename(done)
    except OSError:
        if not is_done(done):
            raise
        shutil.rmtree(work)  # another process was faster


def read_report(done: Path) -> PieceReport:
    """What :func:`write_piece` left."""
    plain = json.loads((done / REPORT).read_text())
    parts = tuple(done / name for name in plain["parts"])
    return PieceReport(parts, plain["rows"], tuple(plain["mistakes"]), plain["count"])


def forget_failed(folder: Path) -> None:
    """Remove the pieces below ``folder`` that had mistakes: the next call reads them again, a network may be back."""
    for done in {file.parent for file in folder.rglob(REPORT)}:
        if read_report(done).count:
            remove_piece(done)


def remove_piece(done: Path) -> None:
    """Remove a piece so that an interruption leaves none that looks whole."""
    (done / REPORT).unlink(missing_ok=True)
    shutil.rmtree(done, ignore_errors=True)


def remove_pieces(folder: Path) -> None:
    """Remove all pieces below a folder, and the folder."""
    for done in list(folder.rglob(REPORT)):
        remove_piece(done.parent)
    shutil.rmtree(folder, ignore_errors=True)


def _write_parts(tables: Iterator[pa.Table], folder: Path, schema: pa.Schema, hashed: bool) -> int:
    total = 0
    part: _Part | None = None
    try:
        for table in tables:
            for start in range(0, table.num_rows, PART_ROWS):
                part = part or _Part(folder, schema, hashed)
                part.add(table.slice(start, PART_ROWS))
                total += min(PART_ROWS, table.num_rows - start)
                if part.is_full:
                    part.close()
                    part = None
    finally:
        if part:
            part.close()
    return total


class _Part:
    """One file that is being written."""

    def __init__(self, folder: Path, schema: pa.Schema, hashed: bool) -> None:
        number = len(list(folder.glob("*.parquet")))
        self._path = folder / f"part-{number:05d}.parquet"
        # No dictionaries: texts and ids do not repeat, and trying takes a third of the time.
        self._writer = pq.ParquetWriter(self._path, schema, compression="zstd", use_dictionary=False)
        self._hashes: list[Hashes] | None = [] if hashed else None
        self._rows = self._bytes = 0

    def add(self, table: pa.Table) -> None:
        self._writer.write_table(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._hashes is not None:
            self._hashes.append(hash_ids(table.column(0)))

    @property
    def is_full(self) -> bool:
        return self._rows >= PART_ROWS or self._bytes >= PART_BYTES

    def close(self) -> None:
        self._writer.close()
        if self._hashes is not None:
            hashes = np.concatenate(self._hashes)
            order = np.argsort(hashes, kind="stable")
            np.save(self._path.with_suffix(HASHES), np.stack([hashes[order], order.astype(np.uint64)]))


def hash_ids(ids: pa.ChunkedArray | pa.Array, key: str = "ranker data") -> Hashes:
    """A 64-bit hash (SipHash) of each id, the same in every process; another key (at most 16 letters), another one."""
    values = np.asarray(ids.to_pandas(), dtype=object)
    return pd.util.hash_array(values, hash_key=f"{key:16.16}", categorize=False)


def repeated_ids(parts: Sequence[Path]) -> Iterator[tuple[int, NDArray[np.int64], list[str]]]:
    """(part, its rows, their ids) whose id stands in an earlier row or part; a part may come several times."""
    total = sum(_hashes(part).shape[1] for part in parts)
    if not total:
        return
    ranges = max(1, -(-total // RANGE_ROWS))
    edges = [round(i * 2**64 / ranges) for i in range(ranges + 1)]
    for low, high in pairwise(edges):
        yield from _repeated_between(parts, low, high)


def _hashes(part: Path) -> Any:
    return np.load(part.with_suffix(HASHES), mmap_mode="r")


def _repeated_between(parts: Sequence[Path], low: int, high: int) -> Iterator[tuple[int, NDArray[np.int64], list[str]]]:
    found: list[tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]] = []
    for number, part in enumerate(parts):
        stored = _hashes(part)
        first = int(np.searchsorted(stored[0], np.uint64(low)))
        last = int(np.searchsorted(stored[0], np.uint64(high))) if high < 2**64 else stored.shape[1]
        rows = np.array(stored[1, first:last]).astype(np.int64)
        found.append((np.array(stored[0, first:last]), np.full(last - first, number), rows))
    hashes, numbers, rows = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((rows, numbers, hashes))
    hashes, numbers, rows = hashes[order], numbers[order], rows[order]
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    if not len(same):
        return
    suspects = np.unique(np.concatenate([same, same + 1]))
    frame = pd.DataFrame({"part": numbers[suspects], "row": rows[suspects]})
    frame["id"] = ""
    for number, rows_of in frame.groupby("part"):
        ids = pq.read_table(parts[int(str(number))], columns=["doc_id"])["doc_id"]
        frame.loc[rows_of.index, "id"] = ids.take(pa.array(rows_of["row"])).to_pylist()
    # Equal hashes of different ids are told apart here; the frame is in the order of parts and rows within a hash.
    repeated = frame[frame.duplicated("id")]
    for number, rows_of in repeated.groupby("part"):
        yield int(str(number)), rows_of["row"].to_numpy(np.int64), rows_of["id"].tolist()


def publish_parts(parts: Sequence[Path], folder: Path, schema: pa.Schema, dropped: dict[int, NDArray[np.int64]]) -> int:
    """Parts as ``folder/part-NNNNN.parquet`` without the dropped rows; the number of rows that stay.

    The pieces stay whole, so that a call after an interruption at any point gives the same. Parts without rows are left
    out.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kept = 0
    for number, part in enumerate(parts):
        rows = pq.read_metadata(part).num_rows - len(dropped.get(number, ()))
        target = folder / f"part-{number:05d}.parquet"
        if rows and number in dropped:
            keep = np.ones(pq.read_metadata(part).num_rows, dtype=bool)
            keep[dropped[number]] = False
            write_table(pq.read_table(part).filter(pa.array(keep)), target)
        elif rows:
            _link(part, target)
        kept += rows
    if not kept:
        write_table(schema.empty_table(), folder / "part-00000.parquet")
    return kept


def _link(part: Path, target: Path) -> None:
    """The same file under a second name, or a copy where the file system has no links."""
    try:
        os.link(part, target)
    except OSError:
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(part, temporary)
        temporary.replace(target)


def write_table(table: pa.Table, path: Path) -> None:
    """Write one part to a temporary name and rename it."""
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary, compression="zstd", use_dictionary=False, row_group_size=8192)
    temporary.replace(path)
