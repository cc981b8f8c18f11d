"""Which neighbours become negatives: pure functions of arrays.

The filters, their names and their order are those of `sentence_transformers.util.mine_hard_negatives`, which is the
oracle of the tests. Ranges count what is left after the filters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ranker.config import MineConfig
from ranker.retrieval.signatures import Signatures, likeness

Keys = NDArray[np.int64]
Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]

# In the order in which they are asked; a candidate counts for the first that meets it.
RULES = (
    "copy_of_positive",
    "copy_of_candidate",
    "held_out",
    "positive",
    "near_duplicate",
    "absolute_margin",
    "relative_margin",
    "max_score",
    "min_score",
)
# Those that say that a candidate is too good to be wrong.
TOO_GOOD = ("absolute_margin", "relative_margin", "max_score")


@dataclass(frozen=True)
class Candidates:
    """What the sources found, and what is known about it.

    Args:
        query_ids: (q,); they seed the sample of each query.
        keys: (q, k) positions in the corpus, best first; -1 where there is none.
        scores: (q, k) what the filters read: similarities, or a teacher's probabilities.
        positives: for each query the positions of its relevant documents.
        positive_scores: for each query the scores of those, of the same kind.
        judged_negatives: for each query the positions judged irrelevant; they pass the score filters.
        same_text: (n,) for each document of the corpus a number that tells its text from others.
        held_out: positions of documents that are relevant to queries of other splits; they and their copies are no
            negatives.
        likeness: (q, k) likeness of the text to the most similar positive of the query, 0 to 1. None: not known.
        ranks: (q, k) places in the source's list. None: the columns, from 1.
        signatures: (n, bytes) of each document of the corpus, for those that are drawn at random. None: not known.
    """

    query_ids: Sequence[str]
    keys: Keys
    scores: Scores
    positives: Sequence[Sequence[int]]
    positive_scores: Sequence[Sequence[float]]
    judged_negatives: Sequence[Sequence[int]]
    same_text: NDArray[Any]
    held_out: Keys = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    likeness: Scores | None = None
    ranks: Keys | None = None
    signatures: Signatures | None = None

    def take(self, columns: Keys, empty: Mask) -> "Candidates":
        """These columns (q, any) of each query, in this order; ``empty`` ones hold no candidate."""
        pick = lambda values: np.take_along_axis(values, columns, axis=1)  # noqa: E731
        return replace(
            self,
            keys=np.where(empty, -1, pick(self.keys)),
            scores=np.where(empty, np.float32(-np.inf), pick(self.scores)),
            likeness=None if self.likeness is None else pick(self.likeness),
            ranks=pick(self.places),
        )

    @property
    def places(self) -> Keys:
        """(q, k) places in the source's list, from 1."""
        if self.ranks is not None:
            return self.ranks
        return np.broadcast_to(np.arange(1, self.keys.shape[1] + 1), self.keys.shape)


@dataclass(frozen=True)
class Depth:
    """How far down the lists.

    Args:
        width: candidates that count, the positives among them but no copies.
        last: of those that pass the filters, how many may be chosen from. None: all.
    """

    width: int
    last: int | None

    @classmethod
    def of(cls, mine: MineConfig, max_positives: int) -> "Depth":
        """As sentence-transformers looks, unless ``num_candidates`` says otherwise."""
        if mine.num_candidates is not None:
            return cls(mine.num_candidates, mine.range_max)
        last = mine.range_max
        if last is None:
            told_by_teacher = mine.teacher.model is not None and mine.min_score is not None
            filters = (mine.absolute_margin, mine.relative_margin, mine.max_score, mine.near_duplicates)
            drops = told_by_teacher or any(limit is not None for limit in filters)
            last = mine.range_min + mine.num_negatives * (10 if drops else 1) + max_positives
        return cls(last + max_positives, last)


@dataclass(frozen=True)
class Negatives:
    """The chosen negatives of each query, best first, those drawn from the whole corpus behind.

    Args:
        keys: positions in the corpus. scores: as the candidates have them, NaN for a drawn one.
        ranks: in the source's list, from 1; 0 for a drawn one.
        dropped: rule -> candidates that it removed, each counted for the first rule that met it.
        too_good: for each query the positions that a margin or max_score removed.
        reasons: (q, k) place in RULES of what removed each candidate, -1 for none.
    """

    keys: list[list[int]]
    scores: list[list[float]]
    ranks: list[list[int]]
    dropped: dict[str, int]
    too_good: list[list[int]]
    reasons: NDArray[np.int8]


def choose_negatives(
    candidates: Candidates, mine: MineConfig, seed: int, depth: Depth | None = None, dropped: Mapping[str, int] = {}
) -> Negatives:
    """The negatives of every query; the same seed, query and candidates give the same ones.

    Every positive of a query is left out, and every document with the text of one, or nearly. Margins are measured from
    the least similar positive. A query may get fewer negatives than asked for, or none.

    Args:
        depth: None: what ``mine`` asks for these queries. dropped: what :func:`without_copies` removed before.
    """
    depth = depth or Depth.of(mine, max(map(len, candidates.positives), default=0))
    candidates, copies = without_copies(candidates, depth.width)
    kept, reasons, counts = _filter(candidates, mine)
    num_random = round(mine.random_ratio * mine.num_negatives)
    held_out = set(candidates.same_text[candidates.held_out].tolist()) if num_random else set()
    barred = np.isin(reasons, [RULES.index(rule) for rule in TOO_GOOD])
    rejected = barred | (reasons == RULES.index("near_duplicate"))
    found = Negatives([], [], [], _sum(dropped, copies, counts), [], reasons)
    for row, query_id in enumerate(candidates.query_ids):
        rng = np.random.default_rng([seed, crc32(query_id.encode())])
        columns = np.flatnonzero(kept[row])[: depth.last][mine.range_min :]
        columns = _sample(columns, mine.num_negatives - num_random, mine.sampling_strategy, rng)
        hard = candidates.keys[row, columns].tolist()
        drawn = []
        if num_random:
            taken = [*candidates.positives[row], *hard, *candidates.keys[row, rejected[row]].tolist()]
            taboo = set(candidates.same_text[taken].tolist())
            drawn = _draw(candidates, row, (held_out, taboo), num_random, mine.near_duplicates, rng)
        found.keys.append(hard + drawn)
        found.scores.append(candidates.scores[row, columns].tolist() + [float("nan")] * len(drawn))
        found.ranks.append(candidates.places[row, columns].tolist() + [0] * len(drawn))
        found.too_good.append(candidates.keys[row, barred[row]].tolist())
    return found


def without_copies(candidates: Candidates, width: int) -> tuple[Candidates, dict[str, int]]:
    """The first ``width`` different texts of each list, none of them held out, and what was removed.

    Of equal texts the first of the list stays: a corpus counts each text once, as sentence-transformers' does.
    """
    filled = candidates.keys >= 0
    texts = np.where(filled, candidates.same_text[candidates.keys], 0)
    repeated = _repeated(texts, filled)
    answers = np.zeros_like(filled)
    for row, known in enumerate(candidates.positives):
        answers[row] = np.isin(texts[row], candidates.same_text[list(known)])
    hidden = np.zeros_like(filled)
    removed = {"copy_of_positive": repeated & answers, "copy_of_candidate": repeated & ~answers}
    if len(candidates.held_out):
        hidden = np.isin(texts, np.unique(candidates.same_text[candidates.held_out])) & filled
        removed["held_out"] = hidden & ~repeated
    left = filled & ~repeated & ~hidden
    size = min(width, candidates.keys.shape[1])
    order = np.argsort(~left, axis=1, kind="stable")[:, :size]
    # What stands behind the last that counts was not looked at.
    looked_at = np.cumsum(left, axis=1) - left < size
    counts = {rule: int((mask & looked_at).sum()) for rule, mask in removed.items()}
    return candidates.take(order, ~np.take_along_axis(left, order, axis=1)), counts


def _repeated(texts: NDArray[Any], filled: Mask) -> Mask:
    """Candidates whose text stands further up in the same list."""
    repeated = np.zeros(texts.shape, dtype=bool)
    for row, (values, there) in enumerate(zip(texts, filled, strict=True)):
        columns = np.flatnonzero(there)
        first = np.unique(values[columns], return_index=True)[1]
        repeated[row, np.delete(columns, first)] = True
    return repeated


def _filter(candidates: Candidates, mine: MineConfig) -> tuple[Mask, NDArray[np.int8], dict[str, int]]:
    """Which candidates (q, k) may be negatives, what removed the others, and how many each rule removed."""
    kept = candidates.keys >= 0
    reasons = np.full(kept.shape, -1, dtype=np.int8)
    dropped: dict[str, int] = {}
    for rule, hit in _rules(candidates, mine).items():
        hit &= kept
        reasons[hit] = RULES.index(rule)
        dropped[rule] = int(hit.sum())
        kept &= ~hit
    return kept, reasons, dropped


def _rules(candidates: Candidates, mine: MineConfig) -> dict[str, Mask]:
    scores = candidates.scores
    positive, copies, judged = _same_as_known(candidates)
    least = np.array([min(row, default=np.inf) for row in candidates.positive_scores], dtype=np.float32)[:, None]
    rules = {"positive": positive, "copy_of_positive": copies}
    if mine.near_duplicates is not None and candidates.likeness is not None:
        rules["near_duplicate"] = candidates.likeness >= mine.near_duplicates
    for rule, hit in too_good(scores, least, mine).items():
        rules[rule] = hit & ~judged
    if mine.min_score is not None:
        rules["min_score"] = (scores < mine.min_score) & ~judged
    return rules


def too_good(scores: Scores, least: Scores, mine: MineConfig) -> dict[str, Mask]:
    """Which scores say, rule by rule, that a document is no wrong answer.

    Args:
        least: score of the least similar positive of each row, inf where there is none.
    """
    rules = {}
    if mine.absolute_margin is not None:
        rules["absolute_margin"] = scores + np.float32(mine.absolute_margin) > least
    if mine.relative_margin is not None:
        # |least|, since multiplying a negative similarity would raise the threshold. Without a positive there is none.
        size = np.abs(np.where(np.isinf(least), np.float32(0), least))
        rules["relative_margin"] = scores > least - size * np.float32(mine.relative_margin)
    if mine.max_score is not None:
        rules["max_score"] = scores > mine.max_score
    return rules


def _same_as_known(candidates: Candidates) -> tuple[Mask, Mask, Mask]:
    keys = candidates.keys
    positive, copies, judged = (np.zeros(keys.shape, dtype=bool) for _ in range(3))
    for row, known in enumerate(candidates.positives):
        positive[row] = np.isin(keys[row], known)
        copies[row] = np.isin(candidates.same_text[keys[row]], candidates.same_text[list(known)]) & ~positive[row]
        irrelevant = candidates.same_text[list(candidates.judged_negatives[row])]
        judged[row] = np.isin(candidates.same_text[keys[row]], irrelevant) & ~positive[row] & ~copies[row]
    return positive, copies, judged


def _sum(*counts: Mapping[str, int]) -> dict[str, int]:
    """By rule, in the order of RULES."""
    return {rule: sum(each.get(rule, 0) for each in counts) for rule in RULES if any(rule in each for each in counts)}


def _sample(columns: NDArray[np.intp], count: int, strategy: str, rng: np.random.Generator) -> NDArray[np.intp]:
    if strategy == "top" or len(columns) <= count:
        return columns[:count]
    return np.sort(rng.choice(columns, size=count, replace=False))


def _draw(
    candidates: Candidates,
    row: int,
    taboo: Sequence[set[int]],
    count: int,
    near: float | None,
    rng: np.random.Generator,
) -> list[int]:
    """``count`` documents (fewer where none are left): no text twice, none of ``taboo``, none ``near`` a positive."""
    same_text, known = candidates.same_text, list(candidates.positives[row])
    size, used, drawn = len(same_text), set[int](), list[int]()

    def fits(key: int) -> bool:
        text = int(same_text[key])
        if text in used or any(text in texts for texts in taboo):
            return False
        used.add(text)
        if near is None or candidates.signatures is None or not known:
            return True
        return bool((likeness(candidates.signatures[known], candidates.signatures[key]) < near).all())

    tries = 20 * count
    places = rng.integers(size, size=tries) if tries < size else rng.permutation(size)
    for key in places.tolist():
        if len(drawn) == count:
            break
        if fits(key):
            drawn.append(key)
    return drawn
