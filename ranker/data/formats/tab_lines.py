"""Lines of fields with tabs between: one at a time with its mistake named, or a whole block where there is none."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.errors import SHOWN, Mistakes, shown
from ranker.data.files import Line


class TabForm(NamedTuple):
    """What a line consists of.

    Args:
        names: of the fields, for an error message. num_filled: so many of the first ones must not be blank.
        rest: whether the last field goes to the end of the line, tabs and all.
    """

    names: tuple[str, ...]
    num_filled: int
    rest: bool = False

    def fields(self, line: Line, mistakes: Mistakes) -> list[str] | None:
        """The fields of a line; None, and a mistake, where it is not of this form."""
        fields = line.text.split("\t", len(self.names) - 1 if self.rest else -1)
        if len(fields) != len(self.names):
            problem = f"{len(fields)} fields in {shown(line.text)}"
        elif blank := [
            name for name, text in zip(self.names, fields[: self.num_filled], strict=False) if not text.strip()
        ]:
            problem = f"{' and '.join(blank)} blank in {shown(line.text)}"
        else:
            return fields
        # To find the number of a line far into a file is to read up to it: not for those that are only counted.
        place = line.place if len(mistakes.found) < SHOWN else ""
        mistakes.add(place, f"{problem}; write {', '.join(self.names)} with tabs between")
        return None

    def columns(self, block: bytes, encoding: str) -> list[pa.Array] | None:
        """The fields of all lines as columns of strings; None where a line has to be looked at on its own.

        Such is one that is not of this form, that holds a carriage return or bytes that are not in ``encoding``.
        """
        try:
            text = block.decode(encoding)
        except UnicodeDecodeError:
            return None
        if "\r" in text:
            return None
        num_fields = len(self.names)
        lines = pc.split_pattern(pa.array([text.removesuffix("\n")], pa.string()), "\n").flatten()
        split = pc.split_pattern(lines, "\t", max_splits=num_fields - 1 if self.rest else None)
        if not pc.all(pc.equal(pc.list_value_length(split), num_fields)).as_py():
            return None
        flat = split.flatten()
        columns = [flat.take(pa.array(np.arange(n, len(flat), num_fields))) for n in range(num_fields)]
        return None if any(map(_has_blank, columns[: self.num_filled])) else columns


def _has_blank(column: pa.Array) -> bool:
    return bool(pc.any(pc.or_(pc.equal(column, ""), pc.utf8_is_space(column))).as_py())
