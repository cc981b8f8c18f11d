"""What is wrong with an input, all of it at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

SHOWN = 10


class DataError(ValueError):
    """An input that is not what it should be: where, the value found, what is allowed, what to do."""


class Placed(Protocol):
    """Something that can say where it stands, for a price: the lines before it are counted."""

    @property
    def place(self) -> str:
        """``FILE, line N``."""
        ...


@dataclass
class Mistakes:
    """Collects the mistakes of an input and raises them as one error that shows the first ten.

    Args:
        where: file or folder that is read.
    """

    where: str
    found: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, place: "str | Placed", problem: str) -> None:
        """Note one mistake; ``place`` is a file with its line number, or what knows it and is asked if it is shown."""
        self.count += 1
        if len(self.found) < SHOWN:
            where = place if isinstance(place, str) else place.place
            self.found.append(f"{where}: {problem}" if where else problem)

    def add_all(self, lines: Sequence[str], count: int) -> None:
        """Note what another process found: its first mistakes, and how many there were."""
        self.found += lines[: SHOWN - len(self.found)]
        self.count += count

    def raise_if_any(self) -> None:
        """Raise everything that was noted.

        Raises:
            DataError: one line a mistake.
        """
        if not self.count:
            return
        more = [f"  and {self.count - SHOWN} more"] if self.count > SHOWN else []
        noun = "1 mistake" if self.count == 1 else f"{self.count} mistakes"
        raise DataError("\n".join([f"{self.where}: {noun}", *(f"  {line}" for line in self.found), *more]))


def shown(value: object, width: int = 80) -> str:
    """A value as it stands in an error message, cut to ``width`` characters."""
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 3]}..."
