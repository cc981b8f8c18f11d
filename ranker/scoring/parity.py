"""How faithful one way to score is to torch fp32, on the same pairs. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

Pair = tuple[str, str]
DEPTH = 10


@dataclass(frozen=True)
class Parity:
    """Torch fp32 against another way on the same pairs.

    Args:
        recipe: how the other way was made. num_pairs: pairs compared.
        largest_difference: in logits. rank_correlation: Spearman's, over all pairs; 1 where all logits are equal.
        ndcg_loss: NDCG@10 that is lost, mean of the queries; below 0 where the other way is better. Against the
            labels of the pairs where a query has any, else against fp32's own probabilities as gains.
        megabytes: of the graph with its weights.
    """

    recipe: str
    num_pairs: int
    largest_difference: float
    rank_correlation: float
    ndcg_loss: float = 0.0
    megabytes: float = 0.0

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def compare(
    recipe: str,
    exact: np.ndarray,
    found: np.ndarray,
    pairs: Sequence[Pair] = (),
    labels: np.ndarray | None = None,
    megabytes: float = 0.0,
) -> Parity:
    """The parity of two lists of logits of the same pairs.

    Args:
        exact, found: float (n,), of torch fp32 and of the other way.
        pairs: (query, document), for the lists that are ranked. None: no NDCG.
        labels: relevance of the pairs (n,); None: unknown.
    """
    difference = float(np.abs(exact.astype(np.float64) - found).max())
    # Spearman's of a constant list is undefined; equal lists are perfectly faithful all the same.
    flat = np.ptp(exact) == 0 or np.ptp(found) == 0
    correlation = float(difference == 0.0) if flat else float(spearmanr(exact, found).statistic)
    loss = ndcg_loss(exact, found, pairs, labels) if len(pairs) else 0.0
    return Parity(recipe, len(exact), difference, correlation, loss, round(megabytes, 1))


def ndcg_loss(exact: np.ndarray, found: np.ndarray, pairs: Sequence[Pair], labels: np.ndarray | None = None) -> float:
    """NDCG@10 of the order by ``exact`` less that by ``found``, mean over the queries that have two documents."""
    lists: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        lists.setdefault(query, []).append(place)
    losses = []
    for places in lists.values():
        judged = labels is not None and labels[places].max() > 0
        gains = labels[places] if judged and labels is not None else 1 / (1 + np.exp(-exact[places].astype(np.float64)))
        if len(places) > 1:
            losses.append(_ndcg(gains, exact[places]) - _ndcg(gains, found[places]))
    return float(np.mean(losses)) if losses else 0.0


def _ndcg(gains: np.ndarray, scores: np.ndarray) -> float:
    weights = 1 / np.log2(np.arange(2, min(len(gains), DEPTH) + 2))
    best = np.sort(gains)[::-1][:DEPTH] @ weights
    return float(gains[np.argsort(-scores, kind="stable")][:DEPTH] @ weights / best) if best > 0 else 0.0
