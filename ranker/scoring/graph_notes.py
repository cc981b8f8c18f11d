"""What an ONNX file says of itself, read without its weights: a model may be gigabytes, its notes are bytes."""

import os
from pathlib import Path
from typing import BinaryIO

from onnx import ModelProto, StringStringEntryProto

NOTES = ModelProto.METADATA_PROPS_FIELD_NUMBER
# Of Protocol Buffers' encoding: how a field's value is written, and the bytes of those of fixed size.
VARINT, LENGTH = 0, 2
FIXED = {1: 8, 5: 4}


def graph_notes(path: Path) -> dict[str, str]:
    """The ``metadata_props`` of an ONNX file, every other field skipped.

    Raises:
        OSError, ValueError: where the file cannot be read or is no such message.
    """
    found: dict[str, str] = {}
    with path.open("rb") as stream:
        while (tag := _varint(stream)) is not None:
            field, kind = tag >> 3, tag & 7
            size = FIXED.get(kind)
            if kind in (VARINT, LENGTH):
                size = _varint(stream)
            if size is None:
                raise ValueError(f"{path}: is no ONNX graph")
            if field == NOTES and kind == LENGTH:
                entry = StringStringEntryProto.FromString(stream.read(size))
                found[entry.key] = entry.value
            elif kind != VARINT:
                stream.seek(size, os.SEEK_CUR)
    return found


def _varint(stream: BinaryIO) -> int | None:
    """The next number, seven bits a byte, the low ones first; None at the end of the file."""
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError(f"{stream.name}: is no ONNX graph")
