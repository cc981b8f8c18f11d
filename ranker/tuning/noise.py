"""How much of a gain is chance: the best and the default trained with several seeds, compared. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Gain:
    """One recipe against another, each with several seeds, by one measure.

    Args:
        default, best: a value a seed. gain: mean of ``best`` minus mean of ``default``.
        low, high: the 95% interval of the gain (Welch's t); NaN with fewer than two seeds each.
        noise: standard deviation between seeds of one recipe, both pooled. p: two-sided, Welch's t-test.
    """

    default: tuple[float, ...]
    best: tuple[float, ...]
    gain: float
    low: float
    high: float
    noise: float
    p: float

    @property
    def real(self) -> bool:
        """Whether the gain is more than seed noise: the whole interval lies above 0."""
        return bool(self.low > 0)

    def verdict(self, measure: str, where: str) -> str:
        """One sentence that says it."""
        seeds = f"{len(self.best)} and {len(self.default)} seeds"
        if not np.isfinite(self.low):
            return f"{where}: {measure} {self.gain:+.4f} with {seeds}: too few to know what is chance."
        told = (
            f"{where}: {measure} {self.gain:+.4f} (95% from {self.low:+.4f} to {self.high:+.4f}, {seeds}; from seed to "
            f"seed one recipe differs by {self.noise:.4f})"
        )
        if self.real:
            return f"{told}: more than seed noise."
        return f"{told}: within seed noise, so the sweep has not shown that its best is better than the default."


def compare_seeds(default: Sequence[float], best: Sequence[float]) -> Gain:
    """Compare the values of two recipes, one a seed."""
    one, two = np.asarray(default, dtype=np.float64), np.asarray(best, dtype=np.float64)
    gain = float(two.mean() - one.mean()) if len(one) and len(two) else float("nan")
    low = high = p = noise = float("nan")
    if len(one) > 1 and len(two) > 1:
        noise = float(np.sqrt((one.var(ddof=1) * (len(one) - 1) + two.var(ddof=1) * (len(two) - 1))
                              / (len(one) + len(two) - 2)))  # fmt: skip
        if noise == 0.0:
            low = high = gain
            p = 1.0 if gain == 0.0 else 0.0
        else:
            test = stats.ttest_ind(two, one, equal_var=False)
            interval = test.confidence_interval(CONFIDENCE)
            low, high, p = float(interval.low), float(interval.high), float(test.pvalue)
    return Gain(tuple(one.tolist()), tuple(two.tolist()), gain, low, high, noise, p)
