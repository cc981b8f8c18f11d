"""Negatives of all queries, block by block: candidates, the teacher's opinion of them, and the filters."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ranker.config import Experiment, MineConfig
from ranker.data.grouping import LABELLED
from ranker.data.labels import ids_at
from ranker.manifest import fingerprint, read_manifest
from ranker.retrieval.search import encode_queries
from ranker.retrieval.shards import embeddings_of
from ranker.schemas import Collection
from ranker.scoring.scorer import probabilities
from ranker.training.candidates import Pool, candidate_blocks, make_pool
from ranker.training.negatives import RULES, Candidates, Depth, Negatives, Scores, choose_negatives, too_good
from ranker.training.teacher import Logits, score_labelled

QUERY_VECTORS = "query_vectors-{}.npy"
# Removed candidates of a query that are remembered for the report.
REMEMBERED = 3


@dataclass(frozen=True)
class Choice:
    """What became of one query.

    Args:
        negatives: positions, best first, drawn ones behind. similarities: the bi-encoder's, NaN for a drawn one.
        ranks: in the source's list, from 1; 0 for a drawn one.
        relabelled: positions that the teacher takes for relevant, to be positives.
        removed: (position, similarity, rule) of the best candidates that a rule removed.
        logits: position -> the teacher's logit, where it has read the pair.
    """

    negatives: list[int]
    similarities: list[float]
    ranks: list[int]
    relabelled: list[int]
    removed: list[tuple[int, float, str]]
    logits: dict[int, float]


@dataclass
class Chosen:
    """What became of every query of a collection, in their order.

    Args:
        pool: where it came from. dropped: rule -> candidates that it removed. num_candidates: that were looked at.
    """

    pool: Pool
    choices: list[Choice] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    num_candidates: int = 0

    def positives(self, row: int) -> list[int]:
        """Positions of the right answers of a query, those that the teacher found behind."""
        return [*self.pool.known.positives[row], *self.choices[row].relabelled]


def choose(train: Collection, index: Path, config: Experiment, work: Path) -> Chosen:
    """Negatives of every query of a collection, those without a relevant document too.

    Args:
        work: what is done lies here; a call that was interrupted goes on.
    """
    mine, teacher = config.mine, config.mine.teacher
    embeddings = embeddings_of(index)
    pool = make_pool(train, index, embeddings, _query_vectors(train, index, config, work), mine)
    depth = Depth.of(mine, pool.known.max_positives)
    asked = teacher.model is not None and teacher.action != "score"
    chosen = Chosen(pool)
    for number, (candidates, removed) in enumerate(candidate_blocks(pool, mine, work / "candidates")):
        similarities, opinions = candidates.scores, list[dict[int, float]]()
        chosen.num_candidates += int((candidates.keys >= 0).sum()) + sum(removed.values())
        if asked:
            pairs = [(len(chosen.choices) + row, key) for row, keys in _read_by_teacher(candidates) for key in keys]
            folder = work / "teacher" / f"block-{number:05d}"
            logits = score_labelled(as_labelled(train, pairs), train, folder, config)
            opinions = _by_query(candidates, logits)
            candidates, similarities = rescored(candidates, opinions)
        found = choose_negatives(candidates, mine, config.seed, depth, removed)
        for rule, count in found.dropped.items():
            chosen.dropped[rule] = chosen.dropped.get(rule, 0) + count
        relabels = asked and teacher.action == "relabel"
        chosen.choices += list(_choices(candidates, similarities, found, opinions, relabels))
    return chosen


def ask_for_the_rest(train: Collection, chosen: Chosen, config: Experiment, work: Path) -> bool:
    """Let the teacher read what stands in a group and was not read yet; whether there is a teacher.

    What was drawn at random leaves the group where the teacher takes it for relevant.
    """
    mine, teacher = config.mine, config.mine.teacher
    if teacher.model is None:
        return False
    pairs = [
        (row, key)
        for row, choice in enumerate(chosen.choices)
        for key in dict.fromkeys([*chosen.positives(row), *choice.negatives])
        if choice.negatives and key not in choice.logits
    ]
    logits = score_labelled(as_labelled(train, pairs), train, work / "teacher" / "chosen", config)
    for (row, key), logit in zip(pairs, logits.tolist(), strict=True):
        chosen.choices[row].logits[key] = logit
    if teacher.action != "score" and mine.random_ratio:
        chosen.choices = [_without_found(choice, chosen.pool.known.answers[n], mine) for n, choice in
                          enumerate(chosen.choices)]  # fmt: skip
    return True


def _without_found(choice: Choice, answers: Sequence[int], mine: MineConfig) -> Choice:
    """Without drawn negatives that the teacher takes for relevant."""
    drawn = [n for n, rank in enumerate(choice.ranks) if not rank]
    if not drawn:
        return choice
    likely = _likely([choice.logits[choice.negatives[n]] for n in drawn], (1, len(drawn)))
    known = [choice.logits[key] for key in answers if key in choice.logits]
    least = _likely([min(known)], (1, 1)) if known else np.full((1, 1), np.inf, dtype=np.float32)
    found = {n for hit in too_good(likely, least, mine).values() for n in np.array(drawn)[hit[0]].tolist()}
    kept = [n for n in range(len(choice.negatives)) if n not in found]
    return replace(
        choice,
        negatives=[choice.negatives[n] for n in kept],
        similarities=[choice.similarities[n] for n in kept],
        ranks=[choice.ranks[n] for n in kept],
    )


def _query_vectors(train: Collection, index: Path, config: Experiment, work: Path) -> Any:
    """Vectors of the queries, from the work folder or from what was mined before with other filters."""
    embedded = read_manifest(embeddings_of(index).folder)
    texts = hashlib.sha256("\0".join(train.queries["text"].to_pylist()).encode()).hexdigest()
    key = fingerprint([embedded.config, embedded.inputs.get("model"), texts])
    places = [folder / QUERY_VECTORS.format(key) for folder in (work, config.folder("mine"))]
    for place in places:
        if place.is_file():
            vectors = np.load(place)
            break
    else:
        vectors = encode_queries(index, train.queries, batch_size=config.index.batch_size, actors=config.index)
    if not places[0].is_file():
        temporary = work / f".{places[0].name}.tmp"
        with temporary.open("wb") as stream:
            np.save(stream, vectors)
        temporary.replace(places[0])
    return vectors


def _read_by_teacher(candidates: Candidates) -> Iterator[tuple[int, list[int]]]:
    """Row and positions of all that the teacher must read of each query: right answers, then candidates."""
    for row, keys in enumerate(candidates.keys.tolist()):
        answers = dict.fromkeys(candidates.positives[row])
        yield row, [*answers, *(key for key in keys if key >= 0 and key not in answers)]


def _by_query(candidates: Candidates, logits: Logits) -> list[dict[int, float]]:
    """Position -> logit of each query, of the logits of all that :func:`_read_by_teacher` names, in turn."""
    values = iter(logits.tolist())
    return [{key: next(values) for key in keys} for _, keys in _read_by_teacher(candidates)]


def as_labelled(train: Collection, pairs: Sequence[tuple[int, int]]) -> pa.Table:
    """(row of a query, position of a document), by query, as LABELLED; the labels say nothing."""
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    query_ids = train.queries["query_id"].take(pa.array(table[:, 0]))
    labels = pa.array(np.zeros(len(pairs), dtype=np.float32))
    columns = [query_ids, ids_at(train.documents, table[:, 1]), labels, pa.nulls(len(pairs), pa.float32())]
    return pa.table(columns, schema=LABELLED)


def rescored(candidates: Candidates, opinions: Sequence[dict[int, float]]) -> tuple[Candidates, Scores]:
    """Candidates with the teacher's probabilities as scores, best first, and their similarities in that order.

    Args:
        opinions: for each query position -> logit, of all candidates and right answers.
    """
    logits = [[told[key] if key >= 0 else -np.inf for key in keys] for keys, told in
              zip(candidates.keys.tolist(), opinions, strict=True)]  # fmt: skip
    scores = np.where(candidates.keys >= 0, _likely(logits, candidates.keys.shape), np.float32(-np.inf))
    positive_scores = [
        _likely([told[key] for key in known], (len(known),)).tolist()
        for known, told in zip(candidates.positives, opinions, strict=True)
    ]
    order = np.argsort(-scores, axis=1, kind="stable")
    empty = np.take_along_axis(candidates.keys, order, axis=1) < 0
    told = replace(candidates, scores=scores, positive_scores=positive_scores)
    return told.take(order, empty), np.take_along_axis(candidates.scores, order, axis=1)


def _likely(logits: Sequence[Any], shape: tuple[int, ...]) -> Scores:
    return probabilities(np.array(logits, dtype=np.float64).reshape(shape)).astype(np.float32)


def _choices(
    candidates: Candidates,
    similarities: NDArray[np.float32],
    found: Negatives,
    opinions: Sequence[dict[int, float]],
    relabels: bool,
) -> Iterator[Choice]:
    for row, negatives in enumerate(found.keys):
        known = dict(zip(candidates.keys[row].tolist(), similarities[row].tolist(), strict=True))
        ranks, barred = found.ranks[row], found.too_good[row]
        kept = {*negatives, *barred, *candidates.positives[row]} if opinions else set()
        yield Choice(
            negatives,
            [known[key] if rank else float("nan") for key, rank in zip(negatives, ranks, strict=True)],
            ranks,
            barred if relabels else [],
            _best_removed(candidates.keys[row], similarities[row], found.reasons[row]),
            {key: logit for key, logit in opinions[row].items() if key in kept} if opinions else {},
        )


def _best_removed(keys: Any, similarities: Any, reasons: Any) -> list[tuple[int, float, str]]:
    columns = np.flatnonzero((reasons >= 0) & (reasons != RULES.index("positive")))[:REMEMBERED]
    return [(int(keys[c]), float(similarities[c]), RULES[reasons[c]]) for c in columns]
