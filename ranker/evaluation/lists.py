"""Ranked lists before and after a cross-encoder has scored them; pure functions of RUN."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ranker.measures.order import coded, falling, lists_of
from ranker.schemas import RUN, Collection, require


def top_of(run: pa.Table, depth: int) -> pa.Table:
    """The best ``depth`` rows of each query of RUN, by query_id and rank; ranks count from 1 whatever they were."""
    run = require(run, RUN, "run").select(RUN.names)
    queries, _ = coded(run["query_id"])
    by_rank = run.set_column(2, RUN.field("score"), pc.negate(run["rank"].cast(pa.float64())))
    order = falling(by_rank, queries)
    place = _places(queries[order])
    kept = place <= depth
    return run.take(pa.array(order[kept])).set_column(3, RUN.field("rank"), pa.array(place[kept], pa.int32()))


def _places(queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """1, 2, 3 ... within each query; the rows of a query follow each other."""
    starts, sizes = lists_of(queries)
    return np.arange(len(queries)) - np.repeat(starts, sizes) + 1


def with_missed(top: pa.Table, relevant: pa.Table, collection: Collection) -> pa.Table:
    """RUN of :func:`top_of` with the relevant documents that it lacks below it, of those that the corpus holds.

    What is measured then is a retriever that misses nothing: figures rise, and only models are comparable. It is what
    ``CrossEncoderRerankingEvaluator`` of sentence-transformers does by default.

    Args:
        relevant: QRELS of relevant documents; only queries of ``top`` count.
    """
    asked = relevant.filter(pc.is_in(relevant["query_id"], collection.queries["query_id"]))
    absent = pa.array(collection.documents.missing(asked["doc_id"]), pa.string())
    asked = asked.filter(pc.invert(pc.is_in(asked["doc_id"], absent)))
    lost = asked.join(top, ["query_id", "doc_id"], join_type="left anti").select(["query_id", "doc_id"])
    if not lost.num_rows:
        return top
    frame = lost.to_pandas().sort_values(["query_id", "doc_id"])
    held = top.to_pandas()
    size, lowest = held.groupby("query_id").size(), held.groupby("query_id")["score"].min()
    step = frame.groupby("query_id", sort=False).cumcount() + 1
    frame["rank"] = (frame["query_id"].map(size).fillna(0) + step).astype("int32")
    frame["score"] = frame["query_id"].map(lowest).fillna(0.0) - step
    whole = pd.concat([held, frame[RUN.names]]).sort_values(["query_id", "rank"])
    return pa.Table.from_pandas(whole, schema=RUN, preserve_index=False)


def reordered(top: pa.Table, scores: NDArray[np.float64], depth: int | None = None) -> pa.Table:
    """RUN of the best ``depth`` of each query by new ``scores``; of equal ones the better ranked stays above.

    Args:
        top: from :func:`top_of`. scores: one a row of it. depth: None for all rows.
    """
    rank = top["rank"].to_numpy()
    kept = np.flatnonzero(rank <= (depth if depth is not None else rank.max(initial=0)))
    part = top.take(pa.array(kept))
    queries, _ = coded(part["query_id"])
    order = np.lexsort([rank[kept], -scores[kept], queries])
    part, place = part.take(pa.array(order)), _places(queries[order])
    columns = [part["query_id"], part["doc_id"], pa.array(scores[kept][order]), pa.array(place, pa.int32())]
    return pa.table(columns, schema=RUN)


def with_tail(reranked: pa.Table, first: pa.Table) -> pa.Table:
    """The reranked RUN with what it lacks of ``first`` below it, in ``first``'s order: nothing is lost by reranking.

    Scores of the tail fall by 1 a rank from the lowest reranked one.
    """
    keys = ["query_id", "doc_id"]
    rest = first.select(RUN.names).join(reranked.select(keys), keys, join_type="left anti")
    if not rest.num_rows:
        return reranked
    both = pa.concat_tables([reranked.select(RUN.names), rest.select(RUN.names)])
    is_tail = np.arange(both.num_rows) >= reranked.num_rows
    queries, names = coded(both["query_id"])
    order = np.lexsort([both["rank"].to_numpy(), is_tail, queries])
    queries, is_tail, scores = queries[order], is_tail[order], both["score"].to_numpy()[order]
    place = _places(queries)
    size, lowest = np.zeros(len(names), dtype=np.int64), np.full(len(names), np.inf)
    np.add.at(size, queries[~is_tail], 1)
    np.minimum.at(lowest, queries[~is_tail], scores[~is_tail])
    below = np.where(size > 0, lowest, 0.0)[queries] - (place - size[queries])
    both = both.take(pa.array(order))
    columns = [
        both["query_id"],
        both["doc_id"],
        pa.array(np.where(is_tail, below, scores)),
        pa.array(place, pa.int32()),
    ]
    return pa.table(columns, schema=RUN)
