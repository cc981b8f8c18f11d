"""Lines that are JSON objects: one at a time with every mistake named, or a whole block at once where there is none."""

import codecs
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from ranker.data.errors import Mistakes, shown
from ranker.data.files import Line
from ranker.data.formats.json_records import NotJsonError, read_json

ID_NAMES = ("_id", "doc_id", "query_id", "id")


def json_object(line: Line, mistakes: Mistakes) -> dict[str, Any] | None:
    """The object that a line is; None, and a mistake, where it is none."""
    try:
        record = read_json(line.text)
    except NotJsonError as error:
        mistakes.add(line, f"{error}: {shown(line.text)}; write one object a line")
        return None
    if not isinstance(record, dict):
        mistakes.add(line, f'holds {shown(record)}; write an object such as {{"_id": "7", "text": "..."}}')
        return None
    return record


def identifier_of(
    record: Mapping[str, Any], line: Line, mistakes: Mistakes, names: Sequence[str] = ID_NAMES
) -> str | None:
    """The id under the first of ``names`` that is there, as a string; a whole number is taken as it was written."""
    name = next((name for name in names if name in record), None)
    if name is None:
        mistakes.add(line, f'no "{names[0]}" among {list(record)}; give every line its own "{names[0]}"')
        return None
    value = record[name]
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        mistakes.add(line, f'{name} is {shown(value)}; it must be a string that is not empty, such as "007"')
        return None
    return whole_text(str(value), name, line, mistakes)


def text_of(record: Mapping[str, Any], name: str, line: Line, mistakes: Mistakes) -> str | None:
    """A text field; null is an empty text."""
    value = record.get(name)
    if name in record and value is None:
        return ""
    if isinstance(value, str):
        return whole_text(value, name, line, mistakes)
    found = f"is {shown(value)}" if name in record else f"is missing among {list(record)}"
    mistakes.add(line, f'"{name}" {found}; it must be a string')
    return None


def whole_text(text: str, name: str, line: Line, mistakes: Mistakes) -> str | None:
    r"""The text, when it is one: JSON can write half of a surrogate pair (``"\\ud800"``), which no encoding has."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if line.file.on_invalid == "replace":
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        half = ascii(text[error.start])
        mistakes.add(line, f'"{name}" holds {half}, half of a character; remove it, or say on_invalid=replace')
        return None
    return text


def json_block(block: bytes, names: Sequence[str], encoding: str = "utf-8") -> pa.Table | None:
    """The string fields ``names`` of every line, null where one is missing; None where a line needs a closer look.

    That is: anything but one object a line, another encoding or other bytes than UTF-8, an id or a text that is no
    string, and an id that is blank. Everything that passes is what ``json.loads`` gives.
    """
    if codecs.lookup(encoding).name != "utf-8":
        return None
    try:
        block.decode("utf-8")
        table = arrow_json.read_json(
            io.BytesIO(block),
            arrow_json.ReadOptions(use_threads=False, block_size=max(len(block), 1)),
            arrow_json.ParseOptions(
                explicit_schema=pa.schema([(name, pa.string()) for name in names]), unexpected_field_behavior="ignore"
            ),
        )
    except (UnicodeDecodeError, pa.ArrowInvalid):
        return None
    lines = sum(1 for line in block.split(b"\n") if line and not line.isspace())
    if table.num_rows != lines or pc.any(pc.equal(pc.utf8_trim_whitespace(table[names[0]]), "")).as_py():
        return None
    return table
