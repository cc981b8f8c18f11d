"""Is the change between two systems real? Paired tests over the queries, all from SciPy.

Fisher's randomisation test is the one to quote (Smucker et al., CIKM 2007); the t-test agrees with it on most runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

# Differences below this are rounding, not a change.
SAME = 1e-9
# Rows of random signs in memory at once.
BATCH = 1000


@dataclass(frozen=True)
class PairedTest:
    """One system against another on the same queries, by one measure.

    Args:
        difference: mean of after minus mean of before.
        low, high: percentile bootstrap interval of the difference (95% unless asked otherwise).
        p_randomisation: two-sided, Fisher's randomisation of the signs. p_ttest: two-sided, paired t-test.
        p_holm: p_randomisation after Holm's correction for the other baselines; equal to it when there are none.
        wins, ties, losses: queries that rose, stayed and fell.
    """

    difference: float
    low: float
    high: float
    p_randomisation: float
    p_ttest: float
    p_holm: float
    wins: int
    ties: int
    losses: int

    def significant(self, level: float = 0.05) -> bool:
        """Whether the corrected p-value lies below ``level``."""
        return self.p_holm < level


def paired_test(
    before: np.ndarray, after: np.ndarray, permutations: int = 10_000, seed: int = 13, confidence: float = 0.95
) -> PairedTest:
    """Compare per-query values of two systems, float arrays of one length in the same order of queries.

    Fewer than two queries, or no change at all, give p-values of 1. The randomisation test is exact when all
    ``2 ** queries`` sign patterns are no more than ``permutations``.

    Raises:
        ValueError: when the arrays are not of one length, or empty.
    """
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if before.shape != after.shape or before.ndim != 1 or not len(before):
        raise ValueError(
            f"paired values must be two arrays of one length, at least 1; got shapes {before.shape} and {after.shape}"
        )
    change = after - before
    change[np.abs(change) < SAME] = 0.0
    low, high = _interval(change, confidence, permutations, seed)
    randomisation = _randomisation(change, permutations, seed)
    return PairedTest(
        difference=float(change.mean()),
        low=low,
        high=high,
        p_randomisation=randomisation,
        p_ttest=_ttest(change),
        p_holm=randomisation,
        wins=int((change > 0).sum()),
        ties=int((change == 0).sum()),
        losses=int((change < 0).sum()),
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction (1979): name -> adjusted p-value, never above 1, in the order given."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for step, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def corrected(tests: Mapping[str, PairedTest]) -> dict[str, PairedTest]:
    """The tests of one system against several baselines with ``p_holm`` filled in."""
    adjusted = holm({name: test.p_randomisation for name, test in tests.items()})
    return {name: replace(test, p_holm=adjusted[name]) for name, test in tests.items()}


def _randomisation(change: np.ndarray, permutations: int, seed: int) -> float:
    if len(change) < 2 or not change.any():
        return 1.0
    # One sample and "samples" is SciPy's name for flipping signs.
    result = stats.permutation_test(
        (change,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=BATCH,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _ttest(change: np.ndarray) -> float:
    if len(change) < 2 or not change.any():
        return 1.0
    if np.ptp(change) == 0:
        return 0.0  # the same change in every query: no variance, where SciPy warns
    return float(stats.ttest_rel(change, np.zeros_like(change)).pvalue)


def _interval(change: np.ndarray, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    if len(change) < 2 or np.ptp(change) == 0:
        return float(change.mean()), float(change.mean())
    result = stats.bootstrap(
        (change,),
        np.mean,
        vectorized=True,
        n_resamples=resamples,
        batch=BATCH,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
