"""Two pure functions on ranked lists: put several together, and keep the best few that differ from each other."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

H = TypeVar("H", bound=Hashable)

# The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009).
RRF = 60


def fuse(lists: Sequence[Sequence[H]]) -> list[tuple[H, float]]:
    """Items of several lists by the sum of 1 / (60 + rank), best first; equal sums in the order of the lists."""
    scores: dict[H, float] = {}
    for ranked in lists:
        for rank, item in enumerate(ranked, start=1):
            scores[item] = scores.get(item, 0.0) + 1 / (RRF + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])


def diverse(scores: Sequence[float], vectors: NDArray[np.float32], diversity: float, count: int) -> list[int]:
    """Positions of ``count`` items by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    Each next item has the highest (1 - diversity) relevance - diversity (largest cosine to one that is chosen).

    Args:
        scores: relevance, higher is better; scaled to 0-1 here. vectors: (n, d) of length 1.
        diversity: 0 keeps the order of the scores, 1 looks at differences only.
    """
    values = np.asarray(scores, dtype=np.float64)
    spread = np.ptp(values) if len(values) else 0.0
    relevance = (values - values.min()) / spread if spread > 0 else np.zeros_like(values)
    nearest = np.full(len(values), -np.inf)
    chosen: list[int] = []
    while len(chosen) < min(count, len(values)):
        penalty = diversity * nearest if chosen else 0.0
        gain = (1 - diversity) * relevance - penalty
        if not chosen:
            gain = relevance.copy()  # the first is the best one, whatever the diversity
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
    return chosen
