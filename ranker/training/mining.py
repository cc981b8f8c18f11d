"""Stage `mine`: the retriever's neighbours of the training queries, filtered into training groups.

Writes ``groups.parquet`` (GROUPS, one a query: its positives, then its negatives), ``negatives.parquet`` (which
document is which), ``dev_groups.parquet`` and ``dev_qrels.parquet`` (what `fit` measures itself on).
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ranker.config import Experiment
from ranker.data.stored import open_collection, stored_splits
from ranker.manifest import Done, StageError, read_manifest, run_stage
from ranker.retrieval.index import embeddings_of
from ranker.retrieval.search import encode_queries, search_encoded, search_index
from ranker.schemas import GROUPS, QRELS, Collection, document_texts
from ranker.session import connected
from ranker.training.negatives import Candidates, Negatives, choose_negatives

__all__ = ["choose_negatives", "mine", "mine_collection"]

log = logging.getLogger(__name__)

NEGATIVES = pa.schema(
    [("query_id", pa.string()), ("doc_id", pa.string()), ("score", pa.float64()), ("rank", pa.int32())]
)
DEV_GROUPS = GROUPS.append(pa.field("doc_ids", pa.list_(pa.string())))


def mine(config: Experiment) -> Done:
    """Mine negatives for the train queries and keep the candidates of some dev queries.

    Raises:
        ranker.manifest.StageError: where `data` or `index` has not finished, where they do not belong together, or
            where there is nothing to train on.
    """
    data, index = config.folder("data"), config.folder("index")
    inputs = {"data": read_manifest(data).key, "index": read_manifest(index).key}
    if read_manifest(index).inputs.get("data") != inputs["data"]:
        raise StageError(f"{index}: was built from other data than {data}; run the stage index again")

    def make(work: Path) -> dict[str, Any]:
        if "train" not in stored_splits(data):
            raise StageError(f"{data}: has no train split to mine for, only {stored_splits(data)}")
        with connected(config.ray):
            outcome = _mine_train(work, open_collection(data, "train").in_memory(), index, config)
            return {**outcome, **_keep_dev(work, data, index, config)}

    return run_stage("mine", config.folder("mine"), {**config.mine.identity(), "seed": config.seed}, inputs, make)


def _mine_train(work: Path, train: Collection, index: Path, config: Experiment) -> dict[str, Any]:
    start = time.monotonic()
    train = _sample(_answered(train), config.mine.max_queries, config.seed)
    if not train.queries.num_rows:
        raise StageError("no train query has a relevant document; check the train judgements of the stage data")
    log.info("looking for negatives of %d queries", train.queries.num_rows)
    candidates, chosen = mine_collection(train, index, config)
    groups = make_groups(train, candidates, chosen)
    if not groups.num_rows:
        raise StageError(f"no query got a negative; removed were {chosen.dropped}; loosen the filters of mine")
    pq.write_table(groups, work / "groups.parquet")
    pq.write_table(_negatives_table(train, chosen), work / "negatives.parquet")
    counts = np.array([len(keys) for keys in chosen.keys])
    outcome = {
        "queries": train.queries.num_rows,
        "groups": groups.num_rows,
        "negatives": int(counts.sum()),
        "queries_by_negatives": {int(count): int((counts == count).sum()) for count in np.unique(counts)},
        "drawn_at_random": sum(rank == 0 for ranks in chosen.ranks for rank in ranks),
        "candidates": int((candidates.keys >= 0).sum()),
        "removed": chosen.dropped,
    }
    log.info(
        "%d negatives for %d of %d queries in %.1f s; left out: %s",
        outcome["negatives"], groups.num_rows, train.queries.num_rows, time.monotonic() - start,
        ", ".join(f"{rule} {count}" for rule, count in chosen.dropped.items()) or "nothing",
    )  # fmt: skip
    return outcome


def mine_collection(train: Collection, index: Path, config: Experiment) -> tuple[Candidates, Negatives]:
    """Neighbours and negatives of every query of a collection, those without a relevant document too."""
    candidates = find_candidates(train, index, config.mine.num_candidates, config.index.batch_size)
    return candidates, choose_negatives(candidates, config.mine, config.seed)


def find_candidates(train: Collection, index: Path, k: int, batch_size: int = 64) -> Candidates:
    """The retriever's neighbours of every query, and what the judgements say about them."""
    position = {doc_id: row for row, doc_id in enumerate(train.corpus["doc_id"].to_pylist())}
    query_ids = train.queries["query_id"].to_pylist()
    row_of = {query_id: row for row, query_id in enumerate(query_ids)}
    positives: list[list[int]] = [[] for _ in query_ids]
    negatives: list[list[int]] = [[] for _ in query_ids]
    for judged in train.qrels.to_pylist():
        known = positives if judged["relevance"] >= max(1, train.relevance_level) else negatives
        if judged["doc_id"] in position:  # data.options.allow_missing lets judgements of other documents through
            known[row_of[judged["query_id"]]].append(position[judged["doc_id"]])
    vectors = encode_queries(index, train.queries, batch_size=batch_size)
    run = search_encoded(index, train.queries, vectors, k)
    rows = np.array([row_of[query_id] for query_id in run["query_id"].to_pylist()], dtype=np.int64)
    columns = run["rank"].to_numpy() - 1
    keys = np.full((len(query_ids), int(columns.max(initial=-1)) + 1), -1, dtype=np.int64)
    scores = np.full(keys.shape, -np.inf, dtype=np.float32)
    keys[rows, columns] = [position[doc_id] for doc_id in run["doc_id"].to_pylist()]
    scores[rows, columns] = run["score"].to_numpy()
    similarities = _positive_scores(train, index, vectors, positives)
    return Candidates(query_ids, keys, scores, positives, similarities, negatives, same_texts(train.corpus))


def _positive_scores(
    train: Collection, index: Path, vectors: Any, positives: Sequence[Sequence[int]]
) -> list[list[float]]:
    doc_ids = train.corpus["doc_id"]
    wanted = sorted({key for known in positives for key in known})
    ids = dict(zip(wanted, doc_ids.take(pa.array(wanted, pa.int64())).to_pylist(), strict=True))
    embedded = embeddings_of(index, ids.values())
    return [
        [float(vector @ embedded[ids[key]]) for key in known] for vector, known in zip(vectors, positives, strict=True)
    ]


def same_texts(corpus: pa.Table) -> Any:
    """For each document the position of the first that holds the same text (itself, when there is no other)."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(text, row) for row, text in enumerate(document_texts(corpus))], dtype=np.int64)


def make_groups(train: Collection, candidates: Candidates, chosen: Negatives) -> pa.Table:
    """GROUPS, one a query that got a negative: positives (label 1), then negatives (label 0)."""
    texts, queries = document_texts(train.corpus), train.queries["text"].to_pylist()
    rows = []
    for row, negatives in enumerate(chosen.keys):
        if not negatives:
            continue
        known = {texts[key]: None for key in candidates.positives[row]}  # a text twice is one positive
        rows.append(
            {
                "query_id": candidates.query_ids[row],
                "query": queries[row],
                "documents": [*known, *(texts[key] for key in negatives)],
                "labels": [1.0] * len(known) + [0.0] * len(negatives),
            }
        )
    return pa.Table.from_pylist(rows, schema=GROUPS)


def _negatives_table(train: Collection, chosen: Negatives) -> pa.Table:
    query_ids, doc_ids = train.queries["query_id"].to_pylist(), train.corpus["doc_id"].to_pylist()
    rows = [
        {
            "query_id": query_id,
            "doc_id": doc_ids[key],
            "score": score if rank else None,
            "rank": rank or None,
        }
        for query_id, *found in zip(query_ids, chosen.keys, chosen.scores, chosen.ranks, strict=True)
        for key, score, rank in zip(*found, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=NEGATIVES)


def _keep_dev(work: Path, data: Path, index: Path, config: Experiment) -> dict[str, Any]:
    groups, qrels = DEV_GROUPS.empty_table(), QRELS.empty_table()
    if config.mine.num_dev_queries and "dev" in stored_splits(data):
        dev = _sample(_answered(open_collection(data, "dev")), config.mine.num_dev_queries, config.seed)
        run = search_index(index, dev.queries, config.mine.dev_depth, batch_size=config.index.batch_size)
        groups, qrels = candidate_groups(dev, run), dev.qrels
    pq.write_table(groups, work / "dev_groups.parquet")
    pq.write_table(qrels, work / "dev_qrels.parquet")
    return {"dev_queries": groups.num_rows}


def candidate_groups(collection: Collection, run: pa.Table) -> pa.Table:
    """GROUPS with ``doc_ids``: each query's RUN in rank order, labels are the relevance, 0 without judgement."""
    texts = collection.texts(run["doc_id"])
    relevance = {(j["query_id"], j["doc_id"]): max(0, j["relevance"]) for j in collection.qrels.to_pylist()}
    found: dict[str, list[str]] = {}
    for row in run.sort_by([("query_id", "ascending"), ("rank", "ascending")]).to_pylist():
        found.setdefault(row["query_id"], []).append(row["doc_id"])
    rows = [
        {
            "query_id": query["query_id"],
            "query": query["text"],
            "documents": [texts[doc_id] for doc_id in found[query["query_id"]]],
            "labels": [float(relevance.get((query["query_id"], doc_id), 0)) for doc_id in found[query["query_id"]]],
            "doc_ids": found[query["query_id"]],
        }
        for query in collection.queries.to_pylist()
        if query["query_id"] in found
    ]
    return pa.Table.from_pylist(rows, schema=DEV_GROUPS)


def _answered(collection: Collection) -> Collection:
    """Only the queries with a relevant document."""
    return collection.with_queries(collection.relevant()["query_id"].unique().to_pylist())


def _sample(collection: Collection, count: int | None, seed: int) -> Collection:
    """A seeded sample of the queries, in the collection's own order."""
    query_ids = sorted(collection.queries["query_id"].to_pylist())
    if count is None or len(query_ids) <= count:
        return collection
    order = np.random.default_rng(seed).permutation(len(query_ids))[:count]
    return collection.with_queries([query_ids[i] for i in order])
