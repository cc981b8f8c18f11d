"""Records in CSV or TSV with a header (https://www.rfc-editor.org/rfc/rfc4180).

A cell that is empty is null. Cells hold texts; those of columns that hold numbers or lists by their name are read as
JSON writes them.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.files import HEAD_BYTES, DataFile
from ranker.data.formats.column_roles import is_role
from ranker.data.formats.record_fields import Place
from ranker.data.formats.record_pieces import SAMPLE, Record, RecordParser, RecordPiece, Sample

NUMBERS = ("label", "labels", "score", "scores", "is_duplicate", "pos_scores", "neg_scores")
LISTS = (
    *NUMBERS, "pos", "neg", "positives", "negatives", "documents", "docs", "passages", "candidates", "doc_ids",
    "positive", "negative", "positive_passages", "negative_passages", "positive_document_ids",
    "negative_document_ids",
)  # fmt: skip
_NAME = re.compile(r"[^\W\d][\w\-. ]{0,39}|")
_FIELD_CHARACTERS = 2**31 - 1


@dataclass(frozen=True)
class CsvPiece(RecordPiece):
    """A whole file: a line feed may stand inside of a field, so that it cannot be cut.

    Args:
        names: our name -> the column's, where that is another.
    """

    names: Mapping[str, str]

    def records(self, mistakes: Mistakes) -> Iterator[tuple[Record, Place]]:
        """A record for every row under the header."""
        lines = _lines(self.file, mistakes)
        header: list[str] = []
        special: dict[str, bool] = {}
        for number, cells, problem in _rows(lines, _delimiter(self.file)):
            place = partial(self.file.place, number)
            if problem:
                mistakes.add(place(), f"{problem}; put quotes around the field, and write a quote inside twice")
            elif not header:
                header, special = cells, _special(cells, self.names)
            elif len(cells) != len(header):
                problem = f"{len(cells)} fields under a header of {len(header)}: {shown(cells)}"
                mistakes.add(place(), f"{problem}; put quotes around fields that hold the separator")
            elif wrong := [
                name for name, cell in zip(header, cells, strict=True) if name in special and _no_list(cell)
            ]:
                problem = f'"{wrong[0]}" is {shown(cells[header.index(wrong[0])])}, which is no list in JSON'
                mistakes.add(place(), f'{problem}; write lists as ["...", "..."] (json.dumps)')
            else:
                yield _typed(header, cells, special), place


def csv_pieces(file: DataFile, schema: pa.Schema, parse: RecordParser, names: Mapping[str, str]) -> list[CsvPiece]:
    """The file as one piece."""
    return [CsvPiece(file, schema, parse, names)]


def sample_csv(file: DataFile, names: Mapping[str, str]) -> Sample:
    """The first rows; a column that holds nothing but numbers is given as numbers.

    Raises:
        DataError: where the first line is no header.
    """
    text = io.StringIO(file.head(HEAD_BYTES), newline="")
    rows = [cells for _, cells, problem in _rows(text, _delimiter(file)) if not problem]
    if not rows:
        return Sample([], [])
    header = rows[0]
    if not all(_NAME.fullmatch(name) for name in header) or len(set(header)) < len(header):
        raise DataError(f"{file.where}: its first line {shown(header)} is no header; write the names of the columns")
    special = _special(header, names)
    records = [_typed(header, cells, special) for cells in rows[1 : SAMPLE + 1] if len(cells) == len(header)]
    for name in header:
        if is_role(name) and name not in NUMBERS:
            continue  # a query may be a year
        found = [record[name] for record in records if record[name] is not None]
        if found and all(isinstance(cell, str) and _number(cell) is not None for cell in found):
            for record in records:
                record[name] = None if record[name] is None else _number(record[name])
    return Sample(header, records)


def _special(header: list[str], names: Mapping[str, str]) -> dict[str, bool]:
    """Columns whose cells are more than texts, and whether they may be a number."""
    known = {names.get(ours, ours): ours in NUMBERS for ours in LISTS}
    return {name: known[name] for name in header if name in known}


def _typed(header: list[str], cells: list[str], special: Mapping[str, bool]) -> dict[str, Any]:
    """A row as a record."""
    record: dict[str, Any] = {name: cell or None for name, cell in zip(header, cells, strict=True)}
    for name, is_number in special.items():
        if record[name] is not None:
            record[name] = _value(record[name], is_number)
    return record


def _value(cell: str, is_number: bool) -> Any:
    if cell.startswith("["):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    number = _number(cell) if is_number else None
    return cell if number is None else number


def _no_list(cell: str) -> bool:
    """Whether a cell looks like a list, as pandas writes it, and is none in JSON."""
    return cell.startswith("[") and cell.endswith("]") and isinstance(_value(cell, False), str)


def _number(cell: str) -> float | None:
    if cell in ("True", "False"):
        return float(cell == "True")
    try:
        return float(cell)
    except ValueError:
        return None


def _delimiter(file: DataFile) -> str:
    """A tab in a ``.tsv``; in a ``.csv`` what separates the names of the header."""
    if file.name.lower().removesuffix(".gz").endswith(".tsv"):
        return "\t"
    header = file.head().partition("\n")[0]
    return max(",;\t", key=header.count)


def _lines(file: DataFile, mistakes: Mistakes) -> Iterator[str]:
    """Every line, blank ones too, as they may stand inside of a field."""
    for first, block in file.blocks(mistakes):
        lines = block.removesuffix(b"\n").split(b"\n")
        for number, raw in enumerate(lines, first):
            text = file.decode(raw, mistakes, number)
            # A line that cannot be decoded is a mistake already; its separators still count.
            yield (raw.decode(file.encoding, "replace") if text is None else text) + "\n"


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """(number of its first line, cells, what is wrong) of every row that is not blank."""
    csv.field_size_limit(_FIELD_CHARACTERS)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, [], f"not CSV ({error})"
            continue
        if cells:
            yield number, cells, ""
