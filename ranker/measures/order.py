"""A run in the order in which it is measured, whatever a tool does with equal scores."""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ranker.schemas import RUN, SchemaError, require

Ties = Literal["rank", "score"]


def order_run(run: pa.Table) -> pa.Table:
    """RUN in rank order with strictly falling whole scores, so that no tool's tie rule can change the order.

    The order is by score, descending; equal scores keep their rank, then doc_id. The new score of rank r of
    n is n + 1 - r. trec_eval ignores ranks, reads scores in single precision and breaks ties by doc_id, descending.
    """
    run = require(run, RUN, "run").select(RUN.names)
    queries, _ = coded(run["query_id"])
    order = falling(run, queries)
    starts, sizes = lists_of(queries[order])
    rank = np.arange(len(order)) - np.repeat(starts, sizes) + 1
    score = np.repeat(sizes, sizes) + 1 - rank
    ordered = run.take(pa.array(order))
    return pa.table(
        [ordered["query_id"], ordered["doc_id"], pa.array(score, pa.float64()), pa.array(rank, pa.int32())], schema=RUN
    )


def coded(ids: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[str]]:
    """For each id its place among the different ones, and those, sorted."""
    found = ids.combine_chunks().dictionary_encode()
    names = found.dictionary.to_pylist()
    places = sorted(range(len(names)), key=names.__getitem__)
    codes = np.empty(len(names), dtype=np.int64)
    codes[places] = np.arange(len(names))
    return codes[found.indices.to_numpy(zero_copy_only=False)], [names[place] for place in places]


def falling(run: pa.Table, queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows by query, then score falling, then rank, then doc_id.

    Raises:
        SchemaError: where a score is no number.
    """
    score, rank = run["score"].to_numpy(), run["rank"].to_numpy()
    if (wrong := np.flatnonzero(np.isnan(score))).size:
        row = run.slice(int(wrong[0]), 1).to_pylist()[0]
        raise SchemaError(
            f"run: {wrong.size} scores are not a number, such as that of document {row['doc_id']!r} for query "
            f"{row['query_id']!r}; give each document a score"
        )
    keys = [rank, -score, queries]
    order = np.argsort(queries, kind="stable")
    if not _in_order(*(key[order] for key in keys)):  # most runs are; sorting millions of rows takes long
        order = np.lexsort(keys)
    if not _equal_neighbours(*(key[order] for key in keys)).any():
        return order
    # Only then are names compared: there may be millions of them.
    documents, _ = coded(run["doc_id"])
    return np.lexsort([documents, *keys])


def _in_order(rank: NDArray[np.int32], score: NDArray[np.float64], queries: NDArray[np.int64]) -> bool:
    """Whether rows ordered by query already rise by score, then rank, within each."""
    rises = (score[1:] > score[:-1]) | ((score[1:] == score[:-1]) & (rank[1:] >= rank[:-1]))
    return bool((rises | (queries[1:] != queries[:-1])).all())


def _equal_neighbours(*keys: NDArray[Any]) -> NDArray[np.bool_]:
    same = np.ones(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in keys:
        same &= key[1:] == key[:-1]
    return same


def lists_of(queries: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row and length of each query's list; the rows of a query follow each other."""
    starts = np.flatnonzero(np.append(len(queries) > 0, queries[1:] != queries[:-1]))
    return starts, np.diff(np.append(starts, len(queries)))


def in_single_precision(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores as trec_eval reads them; what is infinite there is so here."""
    with np.errstate(over="ignore"):
        return scores.astype(np.float32).astype(np.float64)


def top_rows(queries: NDArray[np.int64], scores: NDArray[np.float64], depth: int) -> NDArray[np.int64]:
    """Rows that can be among the best ``depth`` of their query under any rule for equal scores.

    Args:
        queries, scores: of rows ordered by query, then score falling.
    """
    starts, sizes = lists_of(queries)
    rounded = in_single_precision(scores)
    last = rounded[starts + np.minimum(sizes, depth) - 1]
    return np.flatnonzero(rounded >= np.repeat(last, sizes))


def tied_rows(queries: NDArray[np.int64], scores: NDArray[np.float64]) -> int:
    """How many rows share their score, in single precision, with another of the same query; rows ordered as above."""
    same = _equal_neighbours(queries, in_single_precision(scores))
    return int((np.append(same, False) | np.append(False, same)).sum()) if len(queries) else 0


def tied_queries(run: pa.Table) -> pa.Array:
    """query_ids in whose lists two documents share a score; scores are those of ``run`` as they stand."""
    counts = run.group_by(["query_id", "score"]).aggregate([([], "count_all")])
    return counts.filter(pc.greater(counts["count_all"], 1))["query_id"].unique()


def doc_ids_once(run: pa.Table) -> None:
    """Raises SchemaError where a query ranks a document twice."""
    counts = run.group_by(["query_id", "doc_id"]).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1))
    if twice.num_rows:
        row = twice.slice(0, 1).to_pylist()[0]
        raise SchemaError(
            f"run: {twice.num_rows} documents stand twice in the list of a query, such as {row['doc_id']!r} in that of "
            f"{row['query_id']!r}; keep one of each"
        )
