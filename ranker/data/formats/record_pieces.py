"""Pieces of files that hold records: each record becomes a row, or mistakes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from ranker.data.errors import Mistakes
from ranker.data.files import DataFile
from ranker.data.formats.record_fields import Place
from ranker.data.pieces import BLOCK_CHARACTERS, BLOCK_ROWS, Row, table_of

Record = Mapping[str, Any]
# A record, where it stands, and where to note what is wrong with it, to a row. None: it gives no row.
RecordParser = Callable[[Record, Place, Mistakes], Row | None]

# Records that are looked at to see what a file holds.
SAMPLE = 32


class Sample(NamedTuple):
    """The first records of a file, and the names of its columns in their order."""

    columns: list[str]
    records: list[dict[str, Any]]


@dataclass(frozen=True)
class RecordPiece(ABC):
    """Records of a file.

    Args:
        schema: of the rows; its first column is the id. parse: see RecordParser.
    """

    file: DataFile
    schema: pa.Schema
    parse: RecordParser

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        return self.file.num_bytes

    @abstractmethod
    def records(self, mistakes: Mistakes) -> Iterator[tuple[Record, Place]]:
        """Each record that can be read, and its place."""

    def tables(self, mistakes: Mistakes) -> Iterator[pa.Table]:
        """Rows in the file's order, as tables of bounded size."""
        waiting: list[Row] = []
        characters = 0
        for row, _ in self._rows(mistakes):
            waiting.append(row)
            characters += _size(row)
            if len(waiting) == BLOCK_ROWS or characters >= BLOCK_CHARACTERS:
                yield table_of(waiting, self.schema)
                waiting, characters = [], 0
        if waiting:
            yield table_of(waiting, self.schema)

    def _rows(self, mistakes: Mistakes) -> Iterator[tuple[Row, Place]]:
        for record, place in self.records(mistakes):
            row = self.parse(record, place, mistakes)
            if row is not None:
                yield row, place

    def places(self, doc_ids: set[str]) -> Iterator[tuple[str, str]]:
        """Reads the piece again."""
        for row, place in self._rows(Mistakes(self.file.where)):
            if row[0] in doc_ids:
                yield row[0], place()


def _size(row: Row) -> int:
    """Characters in a row, those of its lists of texts too."""
    texts = (text for value in row for text in (value if isinstance(value, list) else [value]))
    return sum(len(text) for text in texts if isinstance(text, str))
