"""One class for every name -> entry table: losses, data sets, vector stores."""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class UnknownNameError(KeyError):
    """A name that no entry has; the message lists the nearest and all the known ones."""

    def __str__(self) -> str:
        return str(self.args[0])


def nearest(name: str, known: list[str]) -> str:
    """The end of an error message: ``did you mean 'bce'? known: bce, lce`` (a long list only without a hint)."""
    close = get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else ""
    if close and len(known) > 12:
        return hint
    return f"{hint} known: {', '.join(sorted(known)) or 'none'}".strip()


class Registry(Mapping[str, T]):
    """A read-only mapping that grows by :meth:`register`.

    Raises:
        ValueError: on a name that is already taken.
        UnknownNameError: on look-up of a name that is not there.
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files an entry under ``name`` and returns it unchanged."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.noun} {name!r} is registered twice; choose another name")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(f"unknown {self.noun} {name!r}; {nearest(name, list(self._entries))}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
