"""Records in JSON: one object a line, or one array of objects."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa

from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.files import HEAD_BYTES, DataFile, Line, OnInvalid
from ranker.data.formats.record_fields import Place
from ranker.data.formats.record_pieces import SAMPLE, Record, RecordParser, RecordPiece, Sample
from ranker.data.pieces import LinePiece, Row, line_pieces

# An array can only be read whole.
ARRAY_BYTES = 512 * 2**20
# A record may be larger than what is looked at first.
_HEADS = (HEAD_BYTES, 64 * HEAD_BYTES)

_HALF = re.compile("[\ud800-\udfff]")
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


class NotJsonError(ValueError):
    """What is wrong with a text that should be JSON."""


def json_pieces(file: DataFile, schema: pa.Schema, parse: RecordParser) -> Sequence["LinePiece | ArrayPiece"]:
    """A file as pieces; an array is one.

    Raises:
        DataError: on an array that is too large to be read whole.
    """
    if not is_array(file):
        return line_pieces(file, schema, partial(parse_line, parse))
    if file.num_bytes > ARRAY_BYTES:
        raise DataError(_too_large(file))
    return [ArrayPiece(file, schema, parse)]


def sample_json(file: DataFile) -> Sample:
    """The first objects; lines that are none are passed over."""
    records: list[dict[str, Any]] = []
    for size in _HEADS:
        head = file.head(size)
        found = _array_items(head) if is_array(file) else (_loaded(line) for line in head.split("\n"))
        records = list(islice((record for record in found if isinstance(record, dict)), SAMPLE))
        if records or not head:
            break
    return Sample(list(dict.fromkeys(name for record in records for name in record)), records)


def is_array(file: DataFile) -> bool:
    """Whether a ``.json`` is one array and not one object a line."""
    named = file.name.lower().removesuffix(".gz").endswith(".json")
    return named and file.head(4096).lstrip().startswith("[")


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _array_items(head: str) -> Iterator[Any]:
    """The items of an array that may be cut."""
    decoder, position = json.JSONDecoder(), head.index("[") + 1 if "[" in head else len(head)
    while True:
        while position < len(head) and head[position] in ", \t\r\n":
            position += 1
        try:
            item, position = decoder.raw_decode(head, position)
        except (ValueError, RecursionError):
            return
        yield item


def parse_line(parse: RecordParser, line: Line, mistakes: Mistakes) -> Row | None:
    """A line with one object as a row."""
    try:
        record = read_json(line.text, line.file.on_invalid)
    except NotJsonError as error:
        mistakes.add(line.place, f"{error}: {shown(line.text)}; write one object a line")
        return None
    if not isinstance(record, dict):
        mistakes.add(line.place, f"holds {shown(record)}; write one object a line, with names for its fields")
        return None
    return parse(record, partial(getattr, line, "place"), mistakes)


def read_json(text: str, on_invalid: OnInvalid = "error") -> Any:
    """What a text of JSON says.

    Raises:
        NotJsonError: where it is not JSON, or an object names a field twice.
    """
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column" if error.lineno > 1 else "column"
        raise NotJsonError(f"not JSON ({error.msg}, {where} {error.colno})") from None
    except RecursionError:
        raise NotJsonError("not JSON that can be read (too deeply nested)") from None
    except NotJsonError:
        raise
    except ValueError as error:  # a whole number of thousands of digits
        raise NotJsonError(f"not JSON that can be read ({error})") from None
    return _repaired(value) if on_invalid == "replace" and _HALF_ESCAPED.search(text) else value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise NotJsonError(f"names the field {next(n for n in found if names.count(n) > 1)!r} twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _repaired(value: Any) -> Any:
    """The same with U+FFFD where JSON has half of a surrogate pair."""
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_repaired(each) for each in value]
    if isinstance(value, dict):
        return {_repaired(name): _repaired(each) for name, each in value.items()}
    return value


@dataclass(frozen=True)
class ArrayPiece(RecordPiece):
    """A file that is one array of objects."""

    def records(self, mistakes: Mistakes) -> Iterator[tuple[Record, Place]]:
        """The objects, all of them in memory."""
        raw = b""
        for _, block in self.file.blocks(mistakes):
            raw += block
            if len(raw) > ARRAY_BYTES:
                mistakes.add("", _too_large(self.file))
                return
        text = self.file.decode(raw, mistakes, 1)
        try:
            items = [] if text is None else read_json(text, self.file.on_invalid)
        except NotJsonError as error:
            mistakes.add(self.file.where, f"{error}; write an array of objects, or one object a line")
            return
        for number, item in enumerate(items, 1):
            place = f"{self.file.where}, record {number}"
            if isinstance(item, dict):
                yield item, partial(str, place)
            else:
                mistakes.add(place, f"holds {shown(item)}; write an object, with names for its fields")


def _too_large(file: DataFile) -> str:
    limit = ARRAY_BYTES // 2**20
    return f"{file.where}: is one JSON array of more than {limit} MB; write one object a line (jq -c '.[]' FILE)"
