"""Records in Parquet: its row groups are read in parallel."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from ranker.data.errors import DataError, Mistakes
from ranker.data.files import SPAN_BYTES, DataFile
from ranker.data.formats.record_fields import Place
from ranker.data.formats.record_pieces import SAMPLE, Record, RecordParser, RecordPiece, Sample

# One record may be a group of a hundred documents.
_BATCH_ROWS = 256


@dataclass(frozen=True)
class ParquetPiece(RecordPiece):
    """Row groups of a file that follow each other.

    Args:
        row_groups: their numbers. first_row: rows before them. size: bytes. reads: the columns that are read.
    """

    row_groups: tuple[int, ...]
    first_row: int
    size: int
    reads: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Of the row groups."""
        return self.size

    def records(self, mistakes: Mistakes) -> Iterator[tuple[Record, Place]]:
        """Each row."""
        row = self.first_row
        try:
            with _opened(self.file) as file:
                columns = [name for name in file.schema_arrow.names if name in self.reads]
                for batch in file.iter_batches(_BATCH_ROWS, list(self.row_groups), columns, use_threads=False):
                    for number, record in _rows_of(batch, self.file, row + 1, mistakes):
                        yield record, partial(_place, self.file, number)
                    row += batch.num_rows
        except (DataError, pa.ArrowException, OSError) as error:
            mistakes.add(_place(self.file, row + 1), f"cannot be read further ({error}); copy the file again")


def parquet_pieces(file: DataFile, schema: pa.Schema, parse: RecordParser, reads: Sequence[str]) -> list[ParquetPiece]:
    """A file as pieces of about SPAN_BYTES; one where it lies in a zip, which is then read whole.

    Raises:
        DataError: where it is no Parquet.
    """
    pieces: list[ParquetPiece] = []
    groups: list[int] = []
    first_row = size = rows = 0
    with _opened(file) as opened:
        total = opened.metadata.num_row_groups
        for number in range(total):
            group = opened.metadata.row_group(number)
            groups.append(number)
            size, rows = size + group.total_byte_size, rows + group.num_rows
            if number == total - 1 or (size >= SPAN_BYTES and not file.member):
                pieces.append(ParquetPiece(file, schema, parse, tuple(groups), first_row, size, tuple(reads)))
                groups, size, first_row = [], 0, rows
    return pieces


def sample_parquet(file: DataFile) -> Sample:
    """The first rows.

    Raises:
        DataError: where it is no Parquet.
    """
    with _opened(file) as opened:
        names = list(opened.schema_arrow.names)
        batch = next(opened.iter_batches(SAMPLE, use_threads=False), None)
        rows = [] if batch is None else _rows_of(batch, file, 1, Mistakes(file.where))
        return Sample(names, [dict(record) for _, record in rows])


def _rows_of(batch: pa.RecordBatch, file: DataFile, first: int, mistakes: Mistakes) -> Iterator[tuple[int, Record]]:
    """(number, record) of the rows of a batch."""
    try:
        yield from enumerate(batch.to_pylist(), first)
        return
    except UnicodeDecodeError:
        pass
    for position in range(batch.num_rows):
        try:
            yield first + position, batch.slice(position, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            place = _place(file, first + position)
            mistakes.add(place, f"holds a text that is not UTF-8 ({error}); write the file again with UTF-8 texts")


def _place(file: DataFile, number: int) -> str:
    return f"{file.where}, row {number}"


@contextmanager
def _opened(file: DataFile) -> Iterator[pq.ParquetFile]:
    with file.open() as stream:
        source = pa.BufferReader(stream.read()) if file.member else stream
        try:
            opened = pq.ParquetFile(source, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file.where}: not a readable Parquet file ({error}); copy it again") from None
        yield opened
