"""Is the change between two systems real? Paired tests over the queries, all from SciPy.

Fisher's randomisation test is the one to quote (Smucker et al., CIKM 2007); the t-test agrees with it on most runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from scipy import stats

# Differences below this are rounding, not a change.
SAME = 1e-9
# Values of resampled queries in memory at once.
BATCH_VALUES = 2**22

Correction = Literal["holm", "bonferroni", "none"]
Name = TypeVar("Name")


@dataclass(frozen=True)
class PairedTest:
    """One system against another on the same queries, by one measure.

    Args:
        difference: mean of after minus mean of before.
        low, high: percentile bootstrap interval of the difference (95% unless asked otherwise).
        p_randomisation: two-sided, Fisher's randomisation of the signs. p_ttest: two-sided, paired t-test.
        p_corrected, p_ttest_corrected: the same after the correction for all pairs that were tested; equal to them when
            there is one pair.
        wins, ties, losses: queries that rose, stayed and fell.
    """

    difference: float
    low: float
    high: float
    p_randomisation: float
    p_ttest: float
    p_corrected: float
    p_ttest_corrected: float
    wins: int
    ties: int
    losses: int

    def significant(self, level: float = 0.05) -> bool:
        """Whether the corrected p-value lies below ``level``."""
        return self.p_corrected < level


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
    randomisation, ttest = _randomisation(change, permutations, seed), _ttest(change)
    return PairedTest(
        difference=float(change.mean()),
        low=low,
        high=high,
        p_randomisation=randomisation,
        p_ttest=ttest,
        p_corrected=randomisation,
        p_ttest_corrected=ttest,
        wins=int((change > 0).sum()),
        ties=int((change == 0).sum()),
        losses=int((change < 0).sum()),
    )


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's step-down correction (1979): name -> adjusted p-value, never above 1, in the order given."""
    adjusted: dict[Name, float] = {}
    largest = 0.0
    for step, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def adjust(p_values: Mapping[Name, float], correction: Correction) -> dict[Name, float]:
    """p-values of one family of tests after ``holm``, ``bonferroni`` (times their number), or ``none``.

    Raises:
        ValueError: on another correction.
    """
    if correction == "holm":
        return holm(p_values)
    if correction not in ("bonferroni", "none"):
        raise ValueError(f"correction {correction!r} is not one of holm, bonferroni, none")
    factor = len(p_values) if correction == "bonferroni" else 1
    return {name: min(1.0, factor * value) for name, value in p_values.items()}


def corrected(tests: Mapping[Name, PairedTest], correction: Correction = "holm") -> dict[Name, PairedTest]:
    """The tests of one family, those of one measure, with their corrected p-values filled in."""
    randomisation = adjust({name: test.p_randomisation for name, test in tests.items()}, correction)
    ttest = adjust({name: test.p_ttest for name, test in tests.items()}, correction)
    return {
        name: replace(test, p_corrected=randomisation[name], p_ttest_corrected=ttest[name])
        for name, test in tests.items()
    }


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
        batch=max(1, BATCH_VALUES // len(change)),
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
        batch=max(1, BATCH_VALUES // len(change)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
