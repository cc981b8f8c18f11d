"""Stage `mine`: the retriever's neighbours of the training queries, filtered into training groups.

Writes ``groups.parquet`` (GROUPS, one a query: its positives, then its negatives), ``negatives.parquet`` (which
document is which), ``dev_groups.parquet`` and ``dev_qrels.parquet`` (what `fit` measures itself on).
"""

import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.config import Experiment, RayConfig
from ranker.data.assembly import Finish
from ranker.data.grouping import LABELLED, group_texts
from ranker.data.labels import ids_at
from ranker.data.leakage import with_copies
from ranker.data.parts import hash_ids
from ranker.data.stored import open_collection, stored_splits
from ranker.manifest import Done, StageError, read_manifest, run_stage
from ranker.retrieval.index import embeddings_of
from ranker.retrieval.search import encode_queries, search_encoded, search_index
from ranker.schemas import GROUPS, QRELS, Collection, Corpus, document_texts
from ranker.session import connected
from ranker.training.negatives import Candidates, Negatives, choose_negatives

__all__ = ["choose_negatives", "mine", "mine_collection"]

log = logging.getLogger(__name__)

# Metadata of dev_qrels.parquet: from which judgement on a document counts as relevant.
LEVEL = "relevance_level"
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
            outcome = _mine_train(work, open_collection(data, "train"), index, config)
            return {**outcome, **_keep_dev(work, data, index, config)}

    return run_stage("mine", config.folder("mine"), {**config.mine.identity(), "seed": config.seed}, inputs, make)


def _mine_train(work: Path, train: Collection, index: Path, config: Experiment) -> dict[str, Any]:
    start = time.monotonic()
    if train.reserved is not None:
        train = train.with_reserved(with_copies(train.documents, train.reserved))
    train = _sample(_answered(train), config.mine.max_queries, config.seed)
    if not train.queries.num_rows:
        raise StageError("no train query has a relevant document; check the train judgements of the stage data")
    log.info("looking for negatives of %d queries", train.queries.num_rows)
    candidates, chosen = mine_collection(train, index, config)
    if not any(chosen.keys):
        raise StageError(f"no query got a negative; removed were {chosen.dropped}; loosen the filters of mine")
    negatives = _negatives_table(train, chosen)
    pq.write_table(negatives, work / "negatives.parquet")
    num_groups = write_groups(work / "groups.parquet", train, negatives, config.ray)
    counts = np.array([len(keys) for keys in chosen.keys])
    outcome = {
        "queries": train.queries.num_rows,
        "groups": num_groups,
        "negatives": int(counts.sum()),
        "queries_by_negatives": {int(count): int((counts == count).sum()) for count in np.unique(counts)},
        "drawn_at_random": sum(rank == 0 for ranks in chosen.ranks for rank in ranks),
        "candidates": int((candidates.keys >= 0).sum()),
        "removed": chosen.dropped,
    }
    log.info(
        "%d negatives for %d of %d queries in %.1f s; left out: %s",
        outcome["negatives"], num_groups, train.queries.num_rows, time.monotonic() - start,
        ", ".join(f"{rule} {count}" for rule, count in chosen.dropped.items()) or "nothing",
    )  # fmt: skip
    return outcome


def mine_collection(train: Collection, index: Path, config: Experiment) -> tuple[Candidates, Negatives]:
    """Neighbours and negatives of every query of a collection, those without a relevant document too."""
    candidates = find_candidates(train, index, config.mine.num_candidates, config.index.batch_size)
    return candidates, choose_negatives(candidates, config.mine, config.seed)


def find_candidates(train: Collection, index: Path, k: int, batch_size: int = 64) -> Candidates:
    """The retriever's neighbours of every query, and what the judgements say about them."""
    query_ids = train.queries["query_id"].to_pylist()
    row_of = {query_id: row for row, query_id in enumerate(query_ids)}
    vectors = encode_queries(index, train.queries, batch_size=batch_size)
    run = search_encoded(index, train.queries, vectors, k)
    reserved = pa.chunked_array([train.reserved if train.reserved is not None else pa.array([], pa.string())])
    position = positions_of(train.documents, [run["doc_id"], train.qrels["doc_id"], reserved])
    held_out = np.array([position[doc_id] for doc_id in reserved.to_pylist() if doc_id in position], dtype=np.int64)
    positives: list[list[int]] = [[] for _ in query_ids]
    negatives: list[list[int]] = [[] for _ in query_ids]
    out_of_reach = set(held_out.tolist())
    for judged in train.qrels.to_pylist():
        known = positives if judged["relevance"] >= max(1, train.relevance_level) else negatives
        key = position.get(judged["doc_id"])  # None: data.options.allow_missing lets such judgements through
        if key is not None and key not in out_of_reach:
            known[row_of[judged["query_id"]]].append(key)
    rows = np.array([row_of[query_id] for query_id in run["query_id"].to_pylist()], dtype=np.int64)
    columns = run["rank"].to_numpy() - 1
    keys = np.full((len(query_ids), int(columns.max(initial=-1)) + 1), -1, dtype=np.int64)
    scores = np.full(keys.shape, -np.inf, dtype=np.float32)
    keys[rows, columns] = [position[doc_id] for doc_id in run["doc_id"].to_pylist()]
    scores[rows, columns] = run["score"].to_numpy()
    similarities, texts = _positive_scores(train, index, vectors, positives), same_texts(train.documents)
    return Candidates(query_ids, keys, scores, positives, similarities, negatives, texts, held_out)


def positions_of(corpus: Corpus, ids: Sequence[pa.ChunkedArray]) -> dict[str, int]:
    """doc_id -> its position in the corpus, for these ids only; unknown ones are left out."""
    wanted = pa.chunked_array([chunk for column in ids for chunk in column.chunks], pa.string()).unique()
    found: dict[str, int] = {}
    start = 0
    for block in corpus.blocks(["doc_id"]):
        rows = np.flatnonzero(pc.is_in(block["doc_id"], wanted).to_numpy())
        names = block["doc_id"].take(pa.array(rows)).to_pylist()
        found.update(zip(names, (rows + start).tolist(), strict=True))
        start += block.num_rows
    return found


def _positive_scores(
    train: Collection, index: Path, vectors: Any, positives: Sequence[Sequence[int]]
) -> list[list[float]]:
    wanted = sorted({key for known in positives for key in known})
    ids = dict(zip(wanted, ids_at(train.documents, np.array(wanted, dtype=np.int64)).to_pylist(), strict=True))
    embedded = embeddings_of(index, ids.values())
    return [
        [float(vector @ embedded[ids[key]]) for key in known] for vector, known in zip(vectors, positives, strict=True)
    ]


def same_texts(corpus: Corpus) -> Any:
    """For each document the position of the first that holds the same text (itself, when there is no other).

    Texts are compared by 64-bit hashes, eight bytes a document: of ten million documents two differ and are taken for
    copies in one of 400,000 corpora, and cost a candidate then.
    """
    hashes = [hash_ids(pa.array(document_texts(block), pa.string()), "text") for block in corpus.blocks()]
    _, first, back = np.unique(np.concatenate(hashes), return_index=True, return_inverse=True)
    return first[back].astype(np.int64)


def write_groups(path: Path, train: Collection, negatives: pa.Table, ray_config: RayConfig) -> int:
    """Write GROUPS, one a query that got a negative: positives (their grades), then negatives (0); how many.

    Args:
        negatives: query_id and doc_id of the chosen ones, by query. The texts are read from the disk to the disk.
    """
    kept = train.with_queries(negatives["query_id"].unique().to_pylist())
    relevant = kept.relevant()
    labelled = pa.concat_tables([_labelled(relevant, relevant["relevance"]), _labelled(negatives, 0)])
    # By query, in the order of the queries; a stable sort keeps positives before negatives and each in its order.
    order = pc.index_in(labelled["query_id"], kept.queries["query_id"].combine_chunks()).to_numpy()
    labelled = labelled.take(pa.array(np.argsort(order, kind="stable")))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".groups-") as folder:
        parts = group_texts(labelled, kept.queries, train.documents, Path(folder), Finish(drop_copies=True), ray_config)
        count = 0
        with pq.ParquetWriter(path, GROUPS, compression="zstd") as writer:
            for part in parts:
                table = pq.read_table(part, columns=GROUPS.names)
                writer.write_table(table)
                count += table.num_rows
    return count


def _labelled(pairs: pa.Table, labels: Any) -> pa.Table:
    grades = np.broadcast_to(np.asarray(labels, dtype=np.float32), pairs.num_rows)
    columns = [pairs["query_id"], pairs["doc_id"], pa.array(grades), pa.nulls(pairs.num_rows, pa.float32())]
    return pa.table(columns, schema=LABELLED)


def _negatives_table(train: Collection, chosen: Negatives) -> pa.Table:
    query_ids = train.queries["query_id"].to_pylist()
    keys = np.array([key for found in chosen.keys for key in found], dtype=np.int64)
    doc_ids = ids_at(train.documents, keys)
    rows = [
        {"query_id": query_id, "score": score if rank else None, "rank": rank or None}
        for query_id, *found in zip(query_ids, chosen.scores, chosen.ranks, strict=True)
        for score, rank in zip(*found, strict=True)
    ]
    columns = [field for field in NEGATIVES if field.name != "doc_id"]
    table = pa.Table.from_pylist(rows, schema=pa.schema(columns))
    return table.add_column(1, NEGATIVES.field("doc_id"), doc_ids.combine_chunks())


def _keep_dev(work: Path, data: Path, index: Path, config: Experiment) -> dict[str, Any]:
    groups, qrels, level = DEV_GROUPS.empty_table(), QRELS.empty_table(), 1
    if config.mine.num_dev_queries and "dev" in stored_splits(data):
        dev = _sample(_answered(open_collection(data, "dev")), config.mine.num_dev_queries, config.seed)
        run = search_index(index, dev.queries, config.mine.dev_depth, batch_size=config.index.batch_size)
        groups, qrels, level = candidate_groups(dev, run), dev.qrels, dev.relevance_level
    pq.write_table(groups, work / "dev_groups.parquet")
    pq.write_table(qrels.replace_schema_metadata({LEVEL: str(level)}), work / "dev_qrels.parquet")
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
