"""Whether a request can be refused before its body is read: what the queue said a moment ago."""

import time
from collections.abc import Callable

# A full queue is asked again after this long, so that none is refused for longer without being asked.
BELIEVED_S = 0.05


class Overload:
    """Remembers that the queue was full until it gives an answer, or for a moment.

    At ten times the load that the replicas can take, nine of ten requests are refused. Reading their bodies and asking
    the queue for each would take the time of those that are answered, and the refusals themselves would come late.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_until = 0.0

    def refused(self) -> None:
        """The queue was full."""
        self._full_until = self._clock() + BELIEVED_S

    def answered(self) -> None:
        """An answer came, so the queue has a place."""
        self._full_until = 0.0

    @property
    def full(self) -> bool:
        """Whether another request would surely be refused as well."""
        return self._clock() < self._full_until
