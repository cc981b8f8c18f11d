"""Candidates of every query, block by block: from the vector index, BM25, the data set's own run, or a TREC run.

A block is kept on disk as soon as it is there, so that an interrupted run goes on with those that are missing.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.config import MineConfig
from ranker.retrieval.embeddings import Embeddings
from ranker.retrieval.search import search_keys
from ranker.retrieval.shards import IndexInfo, Vectors
from ranker.retrieval.signatures import likeness
from ranker.schemas import Collection
from ranker.training.known import Known, judged
from ranker.training.negatives import Candidates, Depth, Keys, Scores, without_copies
from ranker.training.sources import Sources

log = logging.getLogger(__name__)

# Queries looked at together: bounds the memory, and what an interruption costs.
BLOCK_QUERIES = 4096
# A list that is short for all its copies is looked up again, so many times as deep at most.
DEEPEST = 16
# Parts of a factory string that keep less of a vector than it is.
LOSSY = re.compile(r"PQ|SQ|LSH|RaBitQ|ITQ|PCA|RR|RQ|LSQ|ZnLattice", re.IGNORECASE)
INDEX = "index"


@dataclass(frozen=True)
class Pool:
    """All that candidates are taken from.

    Args:
        query_ids, vectors: of the queries, (q,) and (q, d). known: judgements. answer_scores: for each query the
            similarities of ``known.answers``. index: its folder. embeddings: those it was built from.
        sources: what the other sources found, looked up when a block asks for it.
    """

    query_ids: list[str]
    vectors: Vectors
    known: Known
    answer_scores: list[list[float]]
    index: Path
    embeddings: Embeddings
    sources: Sources


def make_pool(train: Collection, index: Path, embeddings: Embeddings, vectors: Vectors, mine: MineConfig) -> Pool:
    """What the blocks need, read once.

    Raises:
        StageError: on a source that does not fit the collection.
    """
    query_ids = train.queries["query_id"].to_pylist()
    known = judged(train)
    rows = np.repeat(np.arange(len(query_ids)), [len(found) for found in known.answers])
    flat = np.array([key for found in known.answers for key in found], dtype=np.int64)
    scores = iter(embeddings.similarities(vectors, rows, flat).tolist())
    answer_scores = [[next(scores) for _ in found] for found in known.answers]
    depth = Depth.of(mine, known.max_positives)
    return Pool(
        query_ids, vectors, known, answer_scores, index, embeddings, Sources(train, embeddings, vectors, depth.width)
    )


def candidate_blocks(pool: Pool, mine: MineConfig, folder: Path) -> Iterator[tuple[Candidates, dict[str, int]]]:
    """Candidates of each block of queries and what was removed of them; made when they are not in ``folder`` yet."""
    folder.mkdir(exist_ok=True)
    for number, start in enumerate(range(0, len(pool.query_ids), BLOCK_QUERIES)):
        rows = slice(start, start + BLOCK_QUERIES)
        file = folder / f"block-{number:05d}.npz"
        if not file.is_file():
            _save(file, *_find(pool, mine, rows))
            log.info("candidates of %d of %d queries", min(rows.stop, len(pool.query_ids)), len(pool.query_ids))
        yield _load(file, pool, rows)


def _find(pool: Pool, mine: MineConfig, rows: slice) -> tuple[Candidates, dict[str, int]]:
    depth = Depth.of(mine, pool.known.max_positives)
    found = [
        _from_index(pool, mine, rows, depth) if name == INDEX else pool.sources.rows(name, rows)
        for name in mine.candidates
    ]
    keys, scores, ranks = _take_turns(found)
    every = replace(_empty(pool, rows), keys=keys, scores=scores, ranks=ranks)
    candidates, removed = without_copies(every, depth.width)
    return replace(candidates, likeness=_likeness(candidates, pool.embeddings)), removed


def _empty(pool: Pool, rows: slice) -> Candidates:
    known, query_ids = pool.known, pool.query_ids[rows]
    return Candidates(
        query_ids,
        keys=np.zeros((len(query_ids), 0), dtype=np.int64),
        scores=np.zeros((len(query_ids), 0), dtype=np.float32),
        positives=known.answers[rows],
        positive_scores=pool.answer_scores[rows],
        judged_negatives=known.judged_negatives[rows],
        same_text=pool.embeddings.hashes,
        held_out=known.held_out,
        signatures=pool.embeddings.signatures,
    )


def _from_index(pool: Pool, mine: MineConfig, rows: slice, depth: Depth) -> tuple[Keys, Scores]:
    """Neighbours of some queries: as many as there must be for ``width`` different texts."""
    vectors, size = pool.vectors[rows], pool.embeddings.num_rows
    count = depth.width
    search = _exact_search(pool)
    keys, scores = search(vectors, count)
    if mine.num_candidates is not None:
        return keys, scores
    deepest, reach = min(DEEPEST * count, size), count
    while reach < deepest:
        cut, _ = without_copies(replace(_empty(pool, rows), keys=keys, scores=scores), depth.width)
        short = np.flatnonzero((cut.keys >= 0).sum(axis=1) < depth.width)
        if not len(short):
            break
        reach = min(2 * reach, deepest)
        found = search(vectors[short], reach)
        keys, scores = _widened(keys, reach, -1), _widened(scores, reach, -np.inf)
        keys[short], scores[short] = _widened(found[0], reach, -1), _widened(found[1], reach, -np.inf)
    return keys, scores


def _exact_search(pool: Pool) -> Callable[[Vectors, int], tuple[Keys, Scores]]:
    """Search with the similarities of the vectors themselves, also where the index keeps less of them."""

    def search(vectors: Vectors, count: int) -> tuple[Keys, Scores]:
        keys, scores = search_keys(pool.index, vectors, count)
        if not LOSSY.search(IndexInfo.read(pool.index).factory):
            return keys, scores
        rows, columns = np.nonzero(keys >= 0)
        scores[rows, columns] = pool.embeddings.similarities(vectors, rows, keys[rows, columns])
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(keys, order, 1), np.take_along_axis(scores, order, 1)

    return search


def _widened(values: NDArray[Any], width: int, fill: float) -> NDArray[Any]:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=fill)


def _take_turns(lists: Sequence[tuple[Keys, Scores]]) -> tuple[Keys, Scores, Keys]:
    """Several lists as one: the first of each, the second of each; a document stays where it comes first.

    Returns:
        keys, scores, and the rank of each in the list that it was taken from.
    """
    width = max(keys.shape[1] for keys, _ in lists)
    keys = np.stack([_widened(keys, width, -1) for keys, _ in lists], axis=2).reshape(len(lists[0][0]), -1)
    scores = np.stack([_widened(scores, width, -np.inf) for _, scores in lists], axis=2).reshape(keys.shape)
    ranks = np.broadcast_to(np.repeat(np.arange(1, width + 1), len(lists)), keys.shape)
    again = np.ones(keys.shape, dtype=bool)
    for row, values in enumerate(keys):
        again[row, np.unique(values, return_index=True)[1]] = False
    again |= keys < 0
    order = np.argsort(again, axis=1, kind="stable")
    pick = [np.take_along_axis(values, order, 1) for values in (keys, scores, ranks, again)]
    return np.where(pick[3], -1, pick[0]), np.where(pick[3], np.float32(-np.inf), pick[1]), pick[2]


def _likeness(candidates: Candidates, embeddings: Embeddings) -> Scores:
    """(q, k) likeness of each candidate to the positive that it is most like; 0 where there is none."""
    found = np.zeros(candidates.keys.shape, dtype=np.float32)
    signatures = embeddings.signatures
    for row, known in enumerate(candidates.positives):
        columns = np.flatnonzero(candidates.keys[row] >= 0)
        if len(known) and len(columns):
            theirs = signatures[candidates.keys[row, columns]]
            found[row, columns] = np.max([likeness(theirs, signatures[key]) for key in known], axis=0)
    return found


def _save(file: Path, candidates: Candidates, removed: dict[str, int]) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("wb") as stream:
        np.savez(
            stream,
            keys=candidates.keys,
            scores=candidates.scores,
            likeness=np.asarray(candidates.likeness),
            ranks=candidates.places.astype(np.int32),
            removed=np.array(json.dumps(removed)),
        )
    temporary.replace(file)


def _load(file: Path, pool: Pool, rows: slice) -> tuple[Candidates, dict[str, int]]:
    with np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in ("keys", "scores", "likeness", "ranks")}
        return replace(_empty(pool, rows), **arrays), json.loads(str(stored["removed"]))
