"""Ranked lists before and after a cross-encoder has scored them; pure functions of RUN."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ranker.schemas import RUN, Collection, require


def top_of(run: pa.Table, depth: int) -> pa.Table:
    """The best ``depth`` rows of each query of RUN, by query_id and rank; ranks count from 1 whatever they were."""
    frame = require(run, RUN, "run").select(RUN.names).to_pandas().sort_values(["query_id", "rank", "doc_id"])
    frame["rank"] = (frame.groupby("query_id", sort=False).cumcount() + 1).astype("int32")
    return pa.Table.from_pandas(frame[frame["rank"] <= depth], schema=RUN, preserve_index=False)


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
    queries = part["query_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort([rank[kept], -scores[kept], queries])
    part, queries = part.take(pa.array(order)), queries[order]
    starts = np.flatnonzero(np.append(len(queries) > 0, queries[1:] != queries[:-1]))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order)))) + 1
    columns = [part["query_id"], part["doc_id"], pa.array(scores[kept][order]), pa.array(place, pa.int32())]
    return pa.table(columns, schema=RUN)


def with_tail(reranked: pa.Table, first: pa.Table) -> pa.Table:
    """The reranked RUN with what it lacks of ``first`` below it, in ``first``'s order: nothing is lost by reranking.

    Scores of the tail fall by 1 a rank from the lowest reranked one.
    """
    top = reranked.to_pandas()
    known = pd.MultiIndex.from_frame(top[["query_id", "doc_id"]])
    rest = first.select(RUN.names).to_pandas().sort_values(["query_id", "rank"])
    rest = rest[~pd.MultiIndex.from_frame(rest[["query_id", "doc_id"]]).isin(known)].copy()
    if not len(rest):
        return reranked
    step = rest.groupby("query_id", sort=False).cumcount() + 1
    lowest, size = top.groupby("query_id")["score"].min(), top.groupby("query_id").size()
    rest["score"] = rest["query_id"].map(lowest).fillna(0.0) - step
    rest["rank"] = (rest["query_id"].map(size).fillna(0) + step).astype("int32")
    whole = pd.concat([top, rest]).sort_values(["query_id", "rank"])
    return pa.Table.from_pandas(whole, schema=RUN, preserve_index=False)
