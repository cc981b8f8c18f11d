"""Stage `mine`: the retriever's neighbours of the training queries, filtered into training groups.

Writes ``groups.parquet`` (GROUPS, one a query: its positives, then its negatives), ``negatives.parquet`` (which
document is which), ``report.md`` with its picture, ``dev_groups.parquet`` and ``dev_qrels.parquet`` (what `fit`
measures itself on).
"""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.config import Experiment
from ranker.data.leakage import with_copies
from ranker.data.stored import open_collection, stored_splits
from ranker.manifest import Done, StageError, fingerprint_path, read_manifest, run_stage
from ranker.pretrained import resolve
from ranker.retrieval.search import search_index
from ranker.retrieval.shards import embeddings_of
from ranker.schemas import GROUPS, QRELS, Collection
from ranker.session import connected
from ranker.training.candidates import INDEX
from ranker.training.choosing import Chosen, ask_for_the_rest, choose
from ranker.training.groups import GROUPS_WORK, negatives_table, retriever_opinions, teacher_opinions, write_groups
from ranker.training.mining_report import write_report
from ranker.training.sources import BM25, DATA, existing_run

__all__ = ["mine"]

log = logging.getLogger(__name__)

# Metadata of dev_qrels.parquet: from which judgement on a document counts as relevant.
LEVEL = "relevance_level"
DEV_GROUPS = GROUPS.append(pa.field("doc_ids", pa.list_(pa.string())))
# What lies in the work folder while the stage runs.
WORK = ("candidates", "teacher", GROUPS_WORK)


def mine(config: Experiment) -> Done:
    """Mine negatives for the train queries and keep the candidates of some dev queries.

    Raises:
        ranker.manifest.StageError: where `data` or `index` has not finished, where they do not belong together, where
            a source of candidates does not fit, or where there is nothing to train on.
        ranker.pretrained.ModelNotFoundError: where the teacher's folder is none.
    """
    data, index = config.folder("data"), config.folder("index")
    inputs = {"data": read_manifest(data).key, "index": read_manifest(index).key, **_further_inputs(config)}
    if read_manifest(index).inputs.get("data") != inputs["data"]:
        raise StageError(f"{index}: was built from other data than {data}; run the stage index again")
    embeddings_of(index)  # not beside the index any more: better said now

    def make(work: Path) -> dict[str, Any]:
        if "train" not in stored_splits(data):
            raise StageError(f"{data}: has no train split to mine for, only {stored_splits(data)}")
        with connected(config.ray):
            outcome = _mine_train(work, open_collection(data, "train"), index, config)
            outcome |= _keep_dev(work, data, index, config)
        for name in WORK:
            shutil.rmtree(work / name, ignore_errors=True)
        return outcome

    return run_stage("mine", config.folder("mine"), {**config.mine.identity(), "seed": config.seed}, inputs, make)


def _further_inputs(config: Experiment) -> dict[str, str]:
    """Fingerprints of the runs and the teacher that the config names."""
    found = {}
    for number, name in enumerate(config.mine.candidates, 1):
        if name not in (INDEX, BM25, DATA):
            found[f"run {number}"] = fingerprint_path(existing_run(name))
    if config.mine.teacher.model is not None:
        model = Path(resolve(config.mine.teacher.model))
        found["teacher"] = fingerprint_path(model) if model.is_dir() else str(model)
    return found


def _mine_train(work: Path, train: Collection, index: Path, config: Experiment) -> dict[str, Any]:
    start = time.monotonic()
    if train.reserved is not None:
        train = train.with_reserved(with_copies(train.documents, train.reserved))
    train = _sample(_answered(train), config.mine.max_queries, config.seed)
    if not train.queries.num_rows:
        raise StageError("no train query has a relevant document; check the train judgements of the stage data")
    log.info("looking for negatives of %d queries", train.queries.num_rows)
    chosen = choose(train, index, config, work)
    if not chosen.num_candidates:
        raise StageError(f"no query got a candidate from {list(config.mine.candidates)}; do they name these queries?")
    if not any(choice.negatives for choice in chosen.choices):
        raise StageError(f"no query got a negative; removed were {chosen.dropped}; loosen the filters of mine")
    read_by_teacher = ask_for_the_rest(train, chosen, config, work)
    negatives = negatives_table(train, chosen)
    pq.write_table(negatives, work / "negatives.parquet")
    opinions = (teacher_opinions if read_by_teacher else retriever_opinions)(train, chosen, negatives)
    num_groups = write_groups(work / "groups.parquet", train, negatives, config.ray, opinions)
    outcome = {**_counts(chosen, train), "groups": num_groups}
    write_report(work, train, chosen, outcome, config)
    log.info(
        "%d negatives for %d of %d queries in %.1f s; left out: %s",
        outcome["negatives"], num_groups, train.queries.num_rows, time.monotonic() - start,
        ", ".join(f"{rule} {count}" for rule, count in chosen.dropped.items()) or "nothing",
    )  # fmt: skip
    return outcome


def _counts(chosen: Chosen, train: Collection) -> dict[str, Any]:
    counts = np.array([len(choice.negatives) for choice in chosen.choices])
    return {
        "queries": train.queries.num_rows,
        "negatives": int(counts.sum()),
        "queries_by_negatives": {int(count): int((counts == count).sum()) for count in np.unique(counts)},
        "drawn_at_random": sum(rank == 0 for choice in chosen.choices for rank in choice.ranks),
        "relabelled": sum(len(choice.relabelled) for choice in chosen.choices),
        "candidates": chosen.num_candidates,
        "removed": chosen.dropped,
    }


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
    """Only the queries with a relevant document that the corpus has."""
    relevant = collection.relevant()
    gone = collection.documents.missing(relevant["doc_id"])
    if gone:
        relevant = relevant.filter(pc.invert(pc.is_in(relevant["doc_id"], pa.array(gone, pa.string()))))
    return collection.with_queries(relevant["query_id"].unique().to_pylist())


def _sample(collection: Collection, count: int | None, seed: int) -> Collection:
    """A seeded sample of the queries, in the collection's own order."""
    query_ids = sorted(collection.queries["query_id"].to_pylist())
    if count is None or len(query_ids) <= count:
        return collection
    order = np.random.default_rng(seed).permutation(len(query_ids))[:count]
    return collection.with_queries([query_ids[i] for i in order])
