"""Which neighbours become negatives: a pure function of arrays.

The filters, their names and their order are those of `sentence_transformers.util.mine_hard_negatives`, which is the
oracle of the tests. Ranges count what is left after the filters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ranker.config import MineConfig

Keys = NDArray[np.int64]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """What the retriever found, and what is known about it.

    Args:
        query_ids: (q,); they seed the sample of each query.
        keys: (q, k) positions in the corpus, best first; -1 where there is none.
        scores: (q, k) similarities.
        positives: for each query the positions of its relevant documents.
        positive_scores: for each query the similarities of those.
        judged_negatives: for each query the positions judged irrelevant; they pass the score filters.
        same_text: (n,) for each document of the corpus the first position that holds the same text.
        held_out: positions of documents that are relevant to queries of other splits; they and their copies are no
            negatives.
    """

    query_ids: Sequence[str]
    keys: Keys
    scores: Scores
    positives: Sequence[Sequence[int]]
    positive_scores: Sequence[Sequence[float]]
    judged_negatives: Sequence[Sequence[int]]
    same_text: Keys
    held_out: Keys = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class Negatives:
    """The chosen negatives of each query, best first, those drawn from the whole corpus behind.

    Args:
        keys: positions in the corpus. scores: similarities, NaN for a drawn one.
        ranks: in the retriever's list, from 1; 0 for a drawn one.
        dropped: rule -> candidates that it removed, each counted for the first rule that met it.
    """

    keys: list[list[int]]
    scores: list[list[float]]
    ranks: list[list[int]]
    dropped: dict[str, int] = field(default_factory=dict)


def choose_negatives(candidates: Candidates, mine: MineConfig, seed: int) -> Negatives:
    """The negatives of every query; the same seed, query and candidates give the same ones.

    Every positive of a query is left out, and every document with the text of one. Margins are measured from the
    least similar positive. A query may get fewer negatives than asked for, or none.
    """
    width = candidates.keys.shape[1]
    if mine.range_max is not None:
        width = min(width, mine.range_max + max(map(len, candidates.positives), default=0))
    keys, scores = candidates.keys[:, :width], candidates.scores[:, :width]
    kept, dropped = _filter(candidates, keys, scores, mine)
    num_random = round(mine.random_ratio * mine.num_negatives)
    held_out = set(candidates.same_text[candidates.held_out].tolist())
    found = Negatives([], [], [], dropped)
    for row, query_id in enumerate(candidates.query_ids):
        rng = np.random.default_rng([seed, crc32(query_id.encode())])
        columns = np.flatnonzero(kept[row])[: mine.range_max][mine.range_min :]
        columns = _sample(columns, mine.num_negatives - num_random, mine.sampling_strategy, rng)
        hard = keys[row, columns].tolist()
        taboo = candidates.same_text[[*candidates.positives[row], *hard]]
        drawn = _draw(candidates.same_text, held_out.union(taboo.tolist()), num_random, rng)
        found.keys.append(hard + drawn)
        found.scores.append(scores[row, columns].tolist() + [float("nan")] * len(drawn))
        found.ranks.append((columns + 1).tolist() + [0] * len(drawn))
    return found


def _filter(
    candidates: Candidates, keys: Keys, scores: Scores, mine: MineConfig
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Which candidates (q, k) may be negatives, and how many each rule removed."""
    kept = keys >= 0
    dropped: dict[str, int] = {}
    texts = np.where(kept, candidates.same_text[keys], -1)
    positive, copies, judged = _same_as_known(candidates, keys, texts)
    least = np.array([min(row, default=np.inf) for row in candidates.positive_scores], dtype=np.float32)[:, None]
    rules = {"positive": positive, "copy_of_positive": copies, "copy_of_candidate": _repeated(texts)}
    held_out = np.unique(candidates.same_text[candidates.held_out])
    if len(held_out):
        rules["held_out"] = np.isin(texts, held_out)
    if mine.absolute_margin is not None:
        rules["absolute_margin"] = (scores + np.float32(mine.absolute_margin) > least) & ~judged
    if mine.relative_margin is not None:
        # |least|, since multiplying a negative similarity would raise the threshold. Without a positive there is none.
        size = np.abs(np.where(np.isinf(least), np.float32(0), least))
        threshold = least - size * np.float32(mine.relative_margin)
        rules["relative_margin"] = (scores > threshold) & ~judged
    if mine.max_score is not None:
        rules["max_score"] = (scores > mine.max_score) & ~judged
    if mine.min_score is not None:
        rules["min_score"] = (scores < mine.min_score) & ~judged
    for rule, hit in rules.items():
        dropped[rule] = int((hit & kept).sum())
        kept &= ~hit
    return kept, dropped


def _same_as_known(
    candidates: Candidates, keys: Keys, texts: Keys
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    positive, copies, judged = (np.zeros(keys.shape, dtype=bool) for _ in range(3))
    for row, known in enumerate(candidates.positives):
        positive[row] = np.isin(keys[row], known)
        copies[row] = np.isin(texts[row], candidates.same_text[list(known)]) & ~positive[row]
        judged[row] = np.isin(keys[row], candidates.judged_negatives[row])
    return positive, copies, judged


def _repeated(texts: Keys) -> NDArray[np.bool_]:
    """Candidates whose text stands further up in the same list."""
    repeated = np.ones(texts.shape, dtype=bool)
    for row, values in enumerate(texts):
        repeated[row, np.unique(values, return_index=True)[1]] = False
    return repeated


def _sample(columns: NDArray[np.intp], count: int, strategy: str, rng: np.random.Generator) -> NDArray[np.intp]:
    if strategy == "top" or len(columns) <= count:
        return columns[:count]
    return np.sort(rng.choice(columns, size=count, replace=False))


def _draw(same_text: Keys, taboo: set[int], count: int, rng: np.random.Generator) -> list[int]:
    """``count`` documents of the corpus, no text twice and none of ``taboo``; fewer where there are none left."""
    size, used = len(same_text), set(taboo)
    drawn: list[int] = []
    for _ in range(20 * count):
        if len(drawn) == count:
            break
        key = int(same_text[rng.integers(size)])
        if key not in used:
            used.add(key)
            drawn.append(key)
    return drawn
