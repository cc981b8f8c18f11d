"""What is wrong with an input, all of it at once."""

from dataclasses import dataclass, field

SHOWN = 10


class DataError(ValueError):
    """An input that is not what it should be: where, the value found, what is allowed, what to do."""


@dataclass
class Mistakes:
    """Collects the mistakes of an input and raises them as one error that shows the first ten.

    Args:
        where: file or folder that is read.
    """

    where: str
    found: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, place: str, problem: str) -> None:
        """Note one mistake; ``place`` is a file with its line number."""
        self.count += 1
        if len(self.found) < SHOWN:
            self.found.append(f"{place}: {problem}")

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
