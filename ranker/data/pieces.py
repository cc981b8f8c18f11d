"""What one task reads of a source: a piece gives tables, a block at a time, and can be sent to another process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from ranker.data import files
from ranker.data.errors import DataError, Mistakes
from ranker.data.files import WHOLE, DataFile, Line, Span
from ranker.schemas import SchemaError

Row = tuple[Any, ...]
# A line, and where to note what is wrong with it, to a row of the piece's type. None: it gives no row.
LineParser = Callable[[Line, Mistakes], Row | None]
# A block of lines as bytes to the table that LineParser would make of it, or None where it has to be asked.
BlockParser = Callable[[bytes], pa.Table | None]

BLOCK_ROWS = 4096
BLOCK_CHARACTERS = 8 * 2**20


class Piece(Protocol):
    """A run of a source's documents or examples."""

    @property
    def num_bytes(self) -> int:
        """About how much there is to read; it decides who reads it."""
        ...

    def tables(self, mistakes: Mistakes) -> Iterator[pa.Table]:
        """Its rows in the source's order; what is wrong with the others goes to ``mistakes``."""
        ...

    def places(self, doc_ids: set[str]) -> Iterator[tuple[str, str]]:
        """(doc_id, ``FILE, line N``) of the rows with these ids: only an error asks."""
        ...


@dataclass(frozen=True)
class LinePiece:
    """Lines of a file, each of which is one row.

    Args:
        schema: of the rows; its first column is the id. parse: see LineParser. parse_block: see BlockParser; None:
            every line is parsed on its own. skip_header: whether a first line of the file is none of the rows.
    """

    file: DataFile
    schema: pa.Schema
    parse: LineParser
    span: Span = WHOLE
    parse_block: BlockParser | None = None
    skip_header: bool = False

    @property
    def num_bytes(self) -> int:
        """Of the span."""
        end = self.file.num_bytes
        return (end if self.span.end is None else min(end, self.span.end)) - self.span.start

    def tables(self, mistakes: Mistakes) -> Iterator[pa.Table]:
        """A table for each block of lines; large ones are cut."""
        for first, block in self.file.blocks(mistakes, self.span):
            table = None
            if self.parse_block is not None and not (self.skip_header and first == 1):
                table = self.parse_block(block)
            if table is not None:
                yield table
            else:
                rows = (row for _, row in self._rows(block, first, mistakes))
                yield from tables_of(rows, self.schema)

    def _rows(self, block: bytes, first: int, mistakes: Mistakes) -> Iterator[tuple[Line, Row]]:
        for line in self.file.lines_of(block, first, mistakes, self.span):
            if self.skip_header and line.number == 1 and not self.span.start:
                continue
            row = self.parse(line, mistakes)
            if row is not None:
                yield line, row

    def places(self, doc_ids: set[str]) -> Iterator[tuple[str, str]]:
        """Reads the piece again."""
        ignored = Mistakes(self.file.where)
        for first, block in self.file.blocks(ignored, self.span):
            for line, row in self._rows(block, first, ignored):
                if row[0] in doc_ids:
                    yield row[0], line.place


def line_pieces(
    file: DataFile,
    schema: pa.Schema,
    parse: LineParser,
    *,
    parse_block: BlockParser | None = None,
    skip_header: bool = False,
) -> list[LinePiece]:
    """A file as pieces that can be read in parallel; one where it is packed."""
    return [LinePiece(file, schema, parse, span, parse_block, skip_header) for span in file.spans()]


@dataclass(frozen=True)
class ChainPiece:
    """Several small pieces that are read one after another into the same parts."""

    pieces: tuple[Piece, ...]

    @property
    def num_bytes(self) -> int:
        """Of all."""
        return sum(piece.num_bytes for piece in self.pieces)

    def tables(self, mistakes: Mistakes) -> Iterator[pa.Table]:
        """Their tables; what one cannot be read for is a mistake, and the next is read."""
        for piece in self.pieces:
            try:
                yield from piece.tables(mistakes)
            except (DataError, SchemaError) as error:
                mistakes.add("", str(error))

    def places(self, doc_ids: set[str]) -> Iterator[tuple[str, str]]:
        """Of all."""
        for piece in self.pieces:
            yield from piece.places(doc_ids)


def gathered(pieces: Sequence[Piece], size: int | None = None) -> list[Piece]:
    """The same rows in fewer pieces, of about ``size`` bytes (None: SPAN_BYTES): some sets have a file a document."""
    limit = files.SPAN_BYTES if size is None else size
    groups: list[list[Piece]] = []
    room = 0
    for piece in pieces:
        if not groups or piece.num_bytes > room:
            groups.append([])
            room = limit
        groups[-1].append(piece)
        room -= piece.num_bytes
    return [group[0] if len(group) == 1 else ChainPiece(tuple(group)) for group in groups]


def tables_of(rows: Iterator[Row], schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows as tables of bounded size."""
    waiting: list[Row] = []
    characters = 0
    for row in rows:
        waiting.append(row)
        characters += sum(len(value) for value in row if isinstance(value, str))
        if len(waiting) == BLOCK_ROWS or characters >= BLOCK_CHARACTERS:
            yield table_of(waiting, schema)
            waiting, characters = [], 0
    if waiting:
        yield table_of(waiting, schema)


def table_of(rows: list[Row], schema: pa.Schema) -> pa.Table:
    """Rows, in the order of the columns, as one table."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


@dataclass(frozen=True)
class TablePiece:
    """Rows that are in memory already."""

    table: pa.Table

    @property
    def num_bytes(self) -> int:
        """Of its buffers."""
        return int(self.table.nbytes)

    def tables(self, mistakes: Mistakes) -> Iterator[pa.Table]:
        """The table itself."""
        yield self.table

    def places(self, doc_ids: set[str]) -> Iterator[tuple[str, str]]:
        """Number of the row."""
        for number, doc_id in enumerate(self.table.column(0).to_pylist(), 1):
            if doc_id in doc_ids:
                yield doc_id, f"row {number}"
