"""The documents of a collection: read a part at a time, wherever they lie and however many they are."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.schemas.tables import CORPUS, SchemaError, require

# Rows that are in memory at once while a stored corpus is read.
BLOCK_ROWS = 8192


class Corpus(ABC):
    """CORPUS as a stream of blocks. Nothing here holds more than one block, except :meth:`table`."""

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Documents."""

    @abstractmethod
    def blocks(self, columns: Sequence[str] = CORPUS.names) -> Iterator[pa.Table]:
        """The documents in order, some thousand at a time, with these columns only."""

    def lookup(self, doc_ids: Iterable[str | None] | pa.Array | pa.ChunkedArray) -> pa.Table:
        """CORPUS of the documents with these ids, in corpus order; unknown ids are left out."""
        wanted = _unique(doc_ids)
        found = [block.filter(pc.is_in(block["doc_id"], wanted)) for block in self.blocks()]
        return pa.concat_tables([CORPUS.empty_table(), *found])

    def missing(self, doc_ids: Iterable[str | None] | pa.Array | pa.ChunkedArray) -> list[str]:
        """Those of the ids that no document has, sorted."""
        left = _unique(doc_ids)
        for block in self.blocks(["doc_id"]):
            if not len(left):
                break
            left = left.filter(pc.invert(pc.is_in(left, block["doc_id"])))
        return sorted(left.to_pylist())

    def rows(self, start: int, length: int) -> pa.Table:
        """CORPUS of the documents from position ``start`` on, ``length`` of them."""
        position, found = 0, [CORPUS.empty_table()]
        for block in self.blocks():
            low, high = max(start - position, 0), min(start + length - position, block.num_rows)
            if low < high:
                found.append(block.slice(low, high - low))
            position += block.num_rows
            if position >= start + length:
                break
        return pa.concat_tables(found)

    def table(self) -> pa.Table:
        """All of it in memory: for corpora that are known to be small."""
        return pa.concat_tables([CORPUS.empty_table(), *self.blocks()])

    def __len__(self) -> int:
        return self.num_rows


class TableCorpus(Corpus):
    """Documents that are in memory already.

    Raises:
        SchemaError: where the table is not CORPUS.
    """

    def __init__(self, table: pa.Table, where: str = "corpus") -> None:
        self._table = require(table, CORPUS, where)

    @property
    def num_rows(self) -> int:
        """Documents."""
        return int(self._table.num_rows)

    def blocks(self, columns: Sequence[str] = CORPUS.names) -> Iterator[pa.Table]:
        """Slices of the table; nothing is copied."""
        table = self._table.select(list(columns))
        for start in range(0, table.num_rows, BLOCK_ROWS):
            yield table.slice(start, BLOCK_ROWS)

    def table(self) -> pa.Table:
        """The table itself."""
        return self._table


class StoredCorpus(Corpus):
    """Documents in a folder of Parquet parts, in name order.

    Raises:
        FileNotFoundError: where there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such table; run the stage that writes it first")
        self.folder = folder.absolute()  # workers have other working directories

    @cached_property
    def parts(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(sorted(self.folder.glob("*.parquet")))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Documents of each file, from their footers."""
        return tuple(_opened(part).metadata.num_rows for part in self.parts)

    @property
    def num_rows(self) -> int:
        """Documents."""
        return sum(self.sizes)

    def rows(self, start: int, length: int) -> pa.Table:
        """The same; only the files that hold some of them are read."""
        position, found = 0, [CORPUS.empty_table()]
        for part, size in zip(self.parts, self.sizes, strict=True):
            low, high = max(start - position, 0), min(start + length - position, size)
            if low < high:
                found.append(require(pq.read_table(part), CORPUS, str(part)).slice(low, high - low))
            position += size
        return pa.concat_tables(found).select(CORPUS.names)

    def blocks(self, columns: Sequence[str] = CORPUS.names) -> Iterator[pa.Table]:
        """A block at a time from the disk."""
        wanted = pa.schema([CORPUS.field(name) for name in columns])
        for part in self.parts:
            yield from read_blocks(part, wanted)


def read_blocks(part: Path, wanted: pa.Schema, size: int = BLOCK_ROWS) -> Iterator[pa.Table]:
    """The rows of one Parquet file, ``size`` at a time, as tables of the type ``wanted``.

    Raises:
        SchemaError: where the file is no Parquet, or holds another table.
    """
    with _opened(part) as file:
        missing = [name for name in wanted.names if name not in file.schema_arrow.names]
        if missing:
            require(file.schema_arrow.empty_table(), wanted, str(part))
        # Without prefetching: it would read the file ahead of the one block that is wanted.
        batches = file.iter_batches(size, columns=list(wanted.names), use_threads=False)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowInvalid, OSError) as error:
                raise SchemaError(f"{part}: cannot be read further ({error}); copy the file again") from error
            if batch is None:
                return
            yield require(pa.Table.from_batches([batch]), wanted, str(part))


def _opened(part: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(part, memory_map=False, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaError(f"{part}: not a readable Parquet file: {error}") from error


def _unique(doc_ids: Iterable[str | None] | pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(doc_ids, pa.ChunkedArray):
        doc_ids = doc_ids.unique()
    if not isinstance(doc_ids, pa.Array):
        doc_ids = pa.array(doc_ids, pa.string())
    return doc_ids.unique().drop_null()
