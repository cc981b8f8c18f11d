"""Which items of which requests go into the next batch: a fair queue that packs similar lengths. Pure, no clock.

Requests are served in the order in which they would end if all of them shared the engine equally (fair sojourn
protocol: Friedman and Henderson, SIGMETRICS 2003). So a request of 5 documents overtakes one of 1,000, none ends later
than under equal shares, and equal ones are served in turn instead of all ending late.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(eq=False)
class Entry(Generic[Item]):
    """What one request still waits for.

    Args:
        finish: when it would end under equal shares, in tokens of virtual time.
        waiting: (cost, place in the request, item), shortest first; of equal ones the last first, as they are
            taken from the end.
        tokens: cost of ``waiting``.
    """

    finish: float
    waiting: list[tuple[int, int, Item]]
    tokens: int = 0


@dataclass(frozen=True)
class Packed(Generic[Item]):
    """One item of a batch: whose it is, its place there, and what it costs."""

    entry: Entry[Item]
    place: int
    item: Item
    cost: int


@dataclass
class FairQueue(Generic[Item]):
    """Requests in the order in which they will be served.

    Args:
        fill: how short an item may be beside the longest of its batch, as a share; below it padding costs more than
            another batch does. 0 takes anything, which is right where small batches are no faster (GPUs).
    """

    fill: float = 0.5
    tokens: int = 0
    _order: list[Entry[Item]] = field(default_factory=list)
    _clock: float = 0.0

    def __len__(self) -> int:
        return len(self._order)

    def add(self, items: Sequence[Item], costs: Sequence[int]) -> Entry[Item]:
        """Queue one request."""
        waiting = sorted(
            ((max(1, cost), place, item) for place, (cost, item) in enumerate(zip(costs, items, strict=True))),
            key=lambda waits: (waits[0], -waits[1]),
        )
        total = sum(cost for cost, _, _ in waiting)
        entry = Entry(self._clock + total, waiting, total)
        insort(self._order, entry, key=lambda other: other.finish)
        self.tokens += total
        return entry

    def discard(self, entry: Entry[Item]) -> None:
        """Forget what a request still waits for: its caller is gone, or it has failed."""
        self.tokens -= entry.tokens
        entry.waiting, entry.tokens = [], 0
        if entry in self._order:
            self._order.remove(entry)

    def take(self, budget: int, max_items: int) -> list[Packed[Item]]:
        """The next batch; empty when nothing waits.

        The request in front gives its longest item, so it always comes forward; then requests in order give what is
        as long or a little shorter, as far as items times the longest stay within ``budget``. An item above the
        budget goes alone.
        """
        if not self._order:
            return []
        longest = max(1, self._order[0].waiting[-1][0])
        room = max(1, min(max_items, budget // longest))
        num_active = len(self._order)
        batch: list[Packed[Item]] = []
        for entry in list(self._order):
            batch += self._give(entry, longest, room - len(batch))
            if len(batch) == room:
                break
        self._clock += sum(packed.cost for packed in batch) / num_active
        return batch

    def ahead(self, cost: int) -> int:
        """Tokens that are served before a new request of this cost ends, itself included.

        Under equal shares each other request gets as much as the new one until either ends; served in the order of
        their ends, the new one ends no later.
        """
        return cost + sum(min(entry.tokens, cost) for entry in self._order)

    def _give(self, entry: Entry[Item], longest: int, room: int) -> list[Packed[Item]]:
        waiting = entry.waiting
        stop = bisect_right(waiting, longest, key=lambda waits: waits[0])
        first = bisect_left(waiting, self.fill * longest, key=lambda waits: waits[0])
        start = max(first, stop - room)
        given = [Packed(entry, place, item, cost) for cost, place, item in reversed(waiting[start:stop])]
        del waiting[start:stop]
        taken = sum(packed.cost for packed in given)
        entry.tokens -= taken
        self.tokens -= taken
        if not waiting:
            self._order.remove(entry)
        return given
