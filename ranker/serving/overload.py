"""Whether a request can be refused before its body is read: what the queue said a moment ago."""

import time
from collections.abc import Callable

# A queue that refused nothing for this long is believed to have room.
FULL_S = 1.0
# While it is full, one request is let through to ask after this long, and one for every answer that came.
ASK_S = 0.25
MOST_PLACES = 16
EVERY_ROUTE = ""


class Overload:
    """Remembers which requests found the queue full, and lets only a few more of their kind ask again.

    At ten times the load that the replicas can take, nine of ten requests are refused. Reading their bodies and asking
    the queue for each would take the time of those that are answered, and the refusals themselves would come late.
    A request is of the same kind where it goes to the same route and its body is no smaller: a smaller one needs less
    time, so the queue may still have room for it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._smallest: dict[str, int] = {}
        self._refused_at = self._asked_at = -FULL_S
        self._places = 0
        self.wait_s = 0.0

    def refused(self, wait_s: float = 0.0, route: str = EVERY_ROUTE, body_bytes: int | None = 0) -> None:
        """The queue was full.

        Args:
            wait_s: seconds until there is room. route: that the request went to.
            body_bytes: of the request; None, where it did not say, teaches nothing about others.
        """
        now = self._clock()
        if now - self._refused_at >= FULL_S:
            self._smallest, self._places, self._asked_at = {}, 0, now
        self._refused_at, self.wait_s = now, wait_s
        if body_bytes is not None:
            self._smallest[route] = min(self._smallest.get(route, body_bytes), body_bytes)

    def answered(self) -> None:
        """An answer came, so the queue has a place."""
        self._places = min(self._places + 1, MOST_PLACES)

    def admits(self, route: str = EVERY_ROUTE, body_bytes: int | None = None) -> bool:
        """Whether a request is let through; one that is takes the place that there was."""
        now = self._clock()
        if now - self._refused_at >= FULL_S or not self._knows(route, body_bytes or 0):
            return True
        if self._places:
            self._places -= 1
            return True
        if now - self._asked_at >= ASK_S:
            self._asked_at = now
            return True
        return False

    def _knows(self, route: str, body_bytes: int) -> bool:
        """Whether a request like this one, or a smaller one, was refused."""
        return any(name in self._smallest and body_bytes >= self._smallest[name] for name in (route, EVERY_ROUTE))
