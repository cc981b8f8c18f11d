"""How fast the engine is, learnt from its batches: how large a batch may be, and how long a queue takes. Pure."""

from collections import deque
from dataclasses import dataclass, field

# Batches that say how fast the engine is: on a CPU with one lane about six seconds of them.
REMEMBERED = 32
# A batch far below the budget says more about the cost of starting one than about the engine's pace.
FULL = 0.5


@dataclass
class Pace:
    """Token budget and speed of one engine.

    Args:
        most: largest budget in padded tokens. batch_s: seconds that a batch should take; None keeps the budget.
        lanes: batches that run side by side.
    """

    most: int
    batch_s: float | None = None
    lanes: int = 1
    _budget: float = 0.0
    _rate: float | None = None
    _recent: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def __post_init__(self) -> None:
        self._budget = float(self.most)

    @property
    def budget(self) -> int:
        """Padded tokens that the next batch may have."""
        return max(1, int(self._budget))

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second in full batches on all lanes, padding not counted; None before the first.

        Of the last batches, without the slowest: one that was held up would otherwise have requests refused that
        the engine answers in time. What is slow again and again counts.
        """
        return None if self._rate is None else self.lanes * self._rate

    def note(self, padded: int, tokens: int, seconds: float) -> None:
        """A batch of so many tokens took so long."""
        if seconds <= 0:
            return
        full = padded >= FULL * self._budget
        if full:
            self._remember(tokens, seconds)
        if self.batch_s is None:
            return
        # Half or double at most, since one measurement may be an accident.
        change = min(2.0, max(0.5, self.batch_s / seconds))
        if full:
            self._budget = min(float(self.most), max(1.0, self._budget * change))
        elif change < 1:
            self._budget = max(1.0, padded * change)

    def shrink(self) -> None:
        """The last batch was too large for the memory."""
        self.most = max(1, self.budget // 2)
        self._budget = float(self.most)

    def seconds(self, tokens: int) -> float:
        """Seconds that so many tokens take; 0 while nothing is known."""
        return tokens / self.tokens_per_s if self.tokens_per_s else 0.0

    def _remember(self, tokens: int, seconds: float) -> None:
        self._recent.append((tokens, seconds))
        by_speed = sorted(self._recent, key=lambda batch: batch[0] / batch[1])
        counted = by_speed[1:] or by_speed
        self._rate = sum(tokens for tokens, _ in counted) / sum(seconds for _, seconds in counted)
