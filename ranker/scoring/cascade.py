"""A short look at every document of a list, and the whole one at the best of them.

The same model reads the first tokens of each pair; only what is then among the best is read in full. What it saves is
known beforehand (50 documents of 200 tokens with a look at 64 and 10 kept: 5,200 of 10,000 tokens); what it loses is
a property of the collection, which :mod:`ranker.scoring.cascade_loss` measures (``ranker engines``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Pair = tuple[str, str]


@dataclass(frozen=True)
class Cascade:
    """``tokens``: of a pair in the short look. ``keep``: documents a query that are read in full."""

    tokens: int
    keep: int


def in_two_passes(
    cascade: Cascade, pairs: Sequence[Pair], score: Callable[[Sequence[Pair], int | None], np.ndarray]
) -> np.ndarray:
    """float32 (n,): logits of the pairs that were read in full, and below them the others in the order of the look.

    Args:
        pairs: those of one query are one list, wherever they stand.
        score: logits of pairs at a length; None: the model's own.
    """
    lists: dict[str, list[int]] = {}
    for place, (query, _) in enumerate(pairs):
        lists.setdefault(query, []).append(place)
    looked = [place for places in lists.values() if len(places) > cascade.keep for place in places]
    short = np.zeros(len(pairs), dtype=np.float64)
    short[looked] = score([pairs[place] for place in looked], cascade.tokens)
    kept = {query: _best(places, short, cascade.keep) for query, places in lists.items()}
    whole = sorted(place for places in kept.values() for place in places)
    scores = np.zeros(len(pairs), dtype=np.float64)
    scores[whole] = score([pairs[place] for place in whole], None)
    for query, places in lists.items():
        rest = sorted(set(places) - set(kept[query]))
        if rest:
            lowest = scores[kept[query]].min()
            # A gap that float32 shows.
            scores[rest] = lowest - (1e-3 + 1e-5 * abs(lowest)) - (short[rest].max() - short[rest])
    return scores.astype(np.float32)


def _best(places: list[int], scores: np.ndarray, keep: int) -> list[int]:
    if len(places) <= keep:
        return places
    order = np.argsort(-scores[places], kind="stable")[:keep]
    return [places[position] for position in order]
