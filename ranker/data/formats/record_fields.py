"""The fields of one record (a JSON object, a row of a table), each checked as it is read."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from ranker.data.errors import SHOWN, Mistakes, shown
from ranker.data.pieces import Row

Place = Callable[[], str]

TEXT = "a text that is not empty"
_MAX_FLOAT32 = 3.4028234663852886e38
_HALF = re.compile("[\ud800-\udfff]")


def query_id_of(query: str) -> str:
    """The id of a query that has none: the same text always gets the same one (BLAKE2b, 64 bits, hex)."""
    return blake2b(query.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass
class Fields:
    """What is wrong with a field is noted as a mistake of the record; what is then returned is of no use.

    Args:
        record: its fields by name. place: where it stands, found only for an error message.
        names: our name -> the record's, where that is another.
        num_wrong: mistakes of this record so far.
    """

    record: Mapping[str, Any]
    place: Place
    mistakes: Mistakes
    names: Mapping[str, str] = field(default_factory=dict)
    num_wrong: int = 0

    def value(self, name: str) -> Any:
        """As it stands in the record; None also where it is missing."""
        return self.record.get(self.names.get(name, name))

    def has(self, name: str) -> bool:
        """Whether the field is there, and is not null."""
        return self.value(name) is not None

    def wrong(self, problem: str) -> None:
        """Note a mistake of this record."""
        self.num_wrong += 1
        # To find the line of a place can mean to read the file up to it: not for mistakes that are only counted.
        shown_at_all = len(self.mistakes.found) < SHOWN
        self.mistakes.add(self.place() if shown_at_all else "", problem)

    def refuse(self, name: str, wanted: str, *, value: Any = None, part: str = "") -> None:
        """Note that a field is not what is wanted; ``part`` is a place inside of it, whose value is ``value``."""
        theirs = self.names.get(name, name)
        if theirs not in self.record:
            self.wrong(f'"{theirs}" is missing among {shown(list(self.record))}; it must be {wanted}')
        else:
            found = shown(value if part else self.record[theirs])
            self.wrong(f'"{theirs}"{part} is {found}; it must be {wanted}')

    def text(self, name: str) -> str:
        """A text with something in it."""
        return self.checked_text(self.value(name), name)

    def checked_text(self, value: Any, name: str, part: str = "") -> str:
        """A value out of a field as such a text."""
        if not isinstance(value, str) or not value or value.isspace():
            self.refuse(name, TEXT, value=value, part=part)
            return ""
        if not value.isascii() and (half := _HALF.search(value)):
            theirs = self.names.get(name, name)
            self.wrong(
                f'"{theirs}"{part} holds {half.group()!a}, half of a character, which cannot be stored; '
                "write the character whole, or read with on_invalid=replace"
            )
        return value

    def texts(self, name: str, *, optional: bool = False) -> list[str]:
        """A list of such texts; a text alone is a list of one, and nothing an empty list where that is allowed."""
        value = self.value(name)
        if value is None and optional:
            return []
        if isinstance(value, str):
            return [self.text(name)]
        if not isinstance(value, list | tuple):
            self.refuse(name, f"{TEXT}, or a list of them")
            return []
        return [self.checked_text(text, name, f"[{position}]") for position, text in enumerate(value)]

    def number(self, name: str) -> float:
        """A finite number; true is 1."""
        return self._checked_number(self.value(name), name)

    def numbers(self, name: str, count: int, *, nullable: bool = False) -> list[float | None]:
        """``count`` finite numbers.

        Args:
            nullable: nulls among them stay, and a field that is null or missing is as many nulls.
        """
        value = self.value(name)
        if value is None and nullable:
            return [None] * count
        if isinstance(value, int | float):
            value = [value]
        if not isinstance(value, list | tuple):
            self.refuse(name, "a list of numbers")
            return []
        if len(value) != count:
            if not count and self.num_wrong:  # the documents are what is wrong
                return []
            theirs = self.names.get(name, name)
            self.wrong(f'"{theirs}" holds {len(value)} numbers for {count} documents; give each document its number')
            return []
        return [
            None if nullable and number is None else self._checked_number(number, name, f"[{position}]")
            for position, number in enumerate(value)
        ]

    def labels(self, name: str, count: int) -> list[float]:
        """``count`` finite numbers, none of them null."""
        return [0.0 if number is None else number for number in self.numbers(name, count)]

    def _checked_number(self, value: Any, name: str, part: str = "") -> float:
        if not isinstance(value, int | float) or not -_MAX_FLOAT32 <= value <= _MAX_FLOAT32:
            self.refuse(name, "a finite number", value=value, part=part)
            return 0.0
        return float(value)

    def identifier(self, names: Sequence[str]) -> str | None:
        """The id under the first of the names that is there, as a string; None where none is."""
        for name in names:
            if self.has(name):
                return self.checked_identifier(self.value(name), name)
        return None

    def identifiers(self, name: str, count: int) -> list[str] | None:
        """``count`` ids; None where the field is null or missing."""
        value = self.value(name)
        if value is None:
            return None
        values = value if isinstance(value, list | tuple) else [value]
        if len(values) != count:
            if not count and self.num_wrong:
                return None
            theirs = self.names.get(name, name)
            self.wrong(f'"{theirs}" holds {len(values)} ids for {count} documents; give each document its id')
            return None
        return [self.checked_identifier(each, name, f"[{position}]") for position, each in enumerate(values)]

    def checked_identifier(self, value: Any, name: str, part: str = "") -> str:
        """A value out of a field as an id; a whole number is taken as it was written."""
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value.strip():
            self.refuse(name, 'an id that is not empty, such as "007"', value=value, part=part)
            return ""
        return self.checked_text(value, name, part)

    def example(
        self,
        query: str,
        documents: list[str],
        labels: Sequence[float],
        *,
        query_ids: Sequence[str],
        doc_ids: list[str] | None = None,
        scores: Sequence[float | None] | None = None,
    ) -> Row | None:
        """A row of EXAMPLES; None where anything was wrong.

        Args:
            query: name of its field. query_ids: names that the field of its id may have; see :func:`query_id_of`.
        """
        text, query_id = self.text(query), self.identifier(query_ids)
        if not documents and not self.num_wrong:
            self.wrong("holds a query without documents; give it some, or remove it")
        if self.num_wrong:
            return None
        return (query_id or query_id_of(text), text, documents, list(labels), doc_ids, scores)
