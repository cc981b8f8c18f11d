"""How fast the engine is, learnt from its batches: how large a batch may be, and how long a queue takes. Pure."""

from dataclasses import dataclass

# Seconds of batches after which a measurement counts half.
HALF_LIFE_S = 5.0
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
    _tokens: float = 0.0
    _seconds: float = 0.0

    def __post_init__(self) -> None:
        self._budget = float(self.most)

    @property
    def budget(self) -> int:
        """Padded tokens that the next batch may have."""
        return max(1, int(self._budget))

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second in full batches on all lanes, padding not counted; None before the first."""
        return self.lanes * self._tokens / self._seconds if self._seconds > 0 else None

    def note(self, padded: int, tokens: int, seconds: float) -> None:
        """A batch of so many tokens took so long."""
        full = padded >= FULL * self._budget
        if full:
            decay = 0.5 ** (seconds / HALF_LIFE_S)
            self._tokens, self._seconds = self._tokens * decay + tokens, self._seconds * decay + seconds
        if self.batch_s is None or seconds <= 0:
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
