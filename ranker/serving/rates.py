"""How much one key may ask for in a minute: a balance that fills evenly."""

import math
import time
from collections.abc import Callable

MINUTE = 60.0


class Balance:
    """A token bucket that holds a minute's worth.

    What costs more than that may overdraw it when it is full, and is paid for by the wait of the next.

    Args:
        per_minute: what comes in, evenly. clock: seconds, monotonic.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._left, self._seen = float(per_minute), clock()

    def spend(self, cost: float) -> int:
        """0 where ``cost`` was taken, else whole seconds until it may be."""
        now = self._clock()
        self._left = min(self._per_minute, self._left + (now - self._seen) * self._per_minute / MINUTE)
        self._seen = now
        needed = min(cost, self._per_minute)
        if self._left >= needed:
            self._left -= cost
            return 0
        return max(1, math.ceil((needed - self._left) * MINUTE / self._per_minute))


class Rates:
    """The balances of every key in this process; each gateway replica keeps its own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._balances: dict[tuple[str, str, int], Balance] = {}

    def spend(self, key: str, noun: str, per_minute: int | None, cost: int) -> int:
        """As :meth:`Balance.spend`, for what (``noun``) a key may have; 0 where ``per_minute`` is None."""
        if per_minute is None:
            return 0
        place = (key, noun, per_minute)  # another limit after a reload starts with a full balance
        balance = self._balances.get(place)
        if balance is None:
            balance = self._balances[place] = Balance(per_minute, self._clock)
        return balance.spend(cost)
