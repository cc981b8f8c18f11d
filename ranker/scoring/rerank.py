"""Rerank a run: the retriever's best documents in the cross-encoder's order. Pure: tables in, a table out."""

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from ranker.schemas import QUERIES, RUN, require


class PairScorer(Protocol):
    """Anything with :meth:`ranker.scoring.scorer.Scorer.score`."""

    def score(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        """float32 logits (n,)."""
        ...


def rerank_run(
    scorer: PairScorer,
    run: pa.Table,
    queries: pa.Table,
    texts: Mapping[str, str],
    depth: int,
    interpolation: float = 0.0,
) -> pa.Table:
    """RUN of the best ``depth`` documents of each query in the scorer's order; the rest of the list is dropped.

    Args:
        scorer: gives the logits.
        run: RUN, the retriever's; its ranks decide what is reranked and break ties.
        queries: QUERIES.
        texts: doc_id -> what the model reads, as ``Collection.texts()`` gives it.
        depth: documents a query.
        interpolation: weight w of the retriever; scores are then
            (1 - w) reranker + w retriever, each scaled to 0-1 within a query's list. At 0 they are raw logits.

    Raises:
        ValueError: naming ids of the run that ``queries`` or ``texts`` do not have, or a bad depth or weight.
    """
    run, queries = require(run, RUN, "run"), require(queries, QUERIES, "queries")
    if depth < 1 or not 0.0 <= interpolation <= 1.0:
        raise ValueError(f"depth {depth} must be at least 1 and interpolation {interpolation} between 0 and 1")
    words = dict(zip(queries["query_id"].to_pylist(), queries["text"].to_pylist(), strict=True))
    rows = _candidates(run, depth)
    _refuse_unknown([row["query_id"] for row in rows], words, "query_id")
    _refuse_unknown([row["doc_id"] for row in rows], texts, "doc_id")
    # One call for all queries: the scorer sorts by length over all of them.
    logits = scorer.score([(words[row["query_id"]], texts[row["doc_id"]]) for row in rows])
    raw: dict[str, list] = {name: [] for name in RUN.names}
    numbered = zip(rows, logits.tolist(), strict=True)
    for query_id, group in groupby(numbered, key=lambda pair: pair[0]["query_id"]):
        # Sorting is stable: of equal scores the retriever's better one stays above.
        pairs = sorted(group, key=lambda pair: -pair[1])
        raw["query_id"] += [query_id] * len(pairs)
        raw["doc_id"] += [row["doc_id"] for row, _ in pairs]
        raw["score"] += [logit for _, logit in pairs]
        raw["rank"] += range(1, len(pairs) + 1)
    return interpolate(pa.table(raw, schema=RUN), run, interpolation)


def interpolate(reranked: pa.Table, first: pa.Table, weight: float) -> pa.Table:
    """The reranked RUN with the first stage's scores mixed in and ordered again; itself at weight 0.

    Args:
        reranked: RUN. first: RUN that holds at least the same documents. weight: of ``first``, 0 to 1.
    """
    if weight == 0.0:
        return reranked
    keys = ["query_id", "doc_id"]
    known = first.select([*keys, "score", "rank"]).to_pandas().rename(columns={"score": "before", "rank": "place"})
    frame = reranked.select([*keys, "score"]).to_pandas().merge(known, on=keys, how="left", validate="one_to_one")
    parts = []
    for _, part in frame.groupby("query_id", sort=False):
        scores = combine(part["score"].to_numpy(), part["before"].to_numpy(), weight)
        part = part.assign(score=scores).sort_values(["score", "place"], ascending=[False, True], kind="stable")
        parts.append(part.assign(rank=np.arange(1, len(part) + 1, dtype=np.int32)))
    whole = pd.concat(parts) if parts else frame.assign(rank=0)
    return pa.Table.from_pandas(whole[RUN.names], schema=RUN, preserve_index=False)


def combine(reranker: np.ndarray, retriever: np.ndarray, interpolation: float) -> np.ndarray:
    """Scores of one query's list, float64 (n,): the reranker's own at weight 0, else the mix of both scaled to 0-1."""
    if interpolation == 0.0:
        return reranker.astype(np.float64)
    return (1 - interpolation) * scale(reranker) + interpolation * scale(retriever)


def scale(scores: np.ndarray) -> np.ndarray:
    """Min-max to 0-1, float64; a list of equal scores becomes zeros, so that the other side decides."""
    values = np.asarray(scores, dtype=np.float64)
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _candidates(run: pa.Table, depth: int) -> list[dict]:
    """Rows of the best ``depth`` of each query by rank; queries in the order of their first row."""
    rows = run.select(RUN.names).to_pylist()
    place = {query_id: number for number, query_id in enumerate(dict.fromkeys(map(itemgetter("query_id"), rows)))}
    rows.sort(key=lambda row: (place[row["query_id"]], row["rank"]))
    kept = []
    for _, group in groupby(rows, key=itemgetter("query_id")):
        kept += list(group)[:depth]
    return kept


def _refuse_unknown(ids: list[str], known: Mapping[str, str], noun: str) -> None:
    unknown = [name for name in dict.fromkeys(ids) if name not in known]
    if unknown:
        shown = ", ".join(map(repr, unknown[:5]))
        raise ValueError(
            f"run: {len(unknown)} {noun}s of it are not in the collection: {shown}; use the run's own collection"
        )
