"""The door: BM25, the retriever and the reranker on the test queries, side by side, with everything to check it."""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.config import Experiment
from ranker.data.catalog import open_collection
from ranker.data.formats import write_trec_qrels, write_trec_run
from ranker.evaluation.comparison import Comparison, compare_runs
from ranker.evaluation.plots import save_change_plot
from ranker.evaluation.report import Report, write_report
from ranker.evaluation.reranking import Reranked, rerank_distributed, with_tail, write_parquet
from ranker.manifest import Done, StageError, fingerprint_path, read_manifest, run_stage, write_json, write_text
from ranker.measures import order_run, parse
from ranker.pretrained import resolve
from ranker.schemas import RUN, Collection
from ranker.scoring.rerank import interpolate
from ranker.session import connected

log = logging.getLogger(__name__)

SPLIT = "test"
# Scored pieces of the reranked run, until it is whole.
SHARDS = "shards"


@dataclass(frozen=True)
class FirstStage:
    """A RUN of a first stage and the seconds that it took for all queries."""

    run: pa.Table
    seconds: float


def evaluate(config: Experiment) -> Done:
    """Runs, metrics and the report of the test queries in ``config.folder("evaluation")``.

    An interrupted call keeps the first stage's runs and every scored shard.

    Raises:
        StageError: when data, index or model are not finished, or there are no judged test queries.
        MeasureError: for an unknown measure, before anything runs.
    """
    for measure in config.evaluate.measures:
        parse(measure)
    model = reranker_of(config)
    inputs = {
        "data": read_manifest(config.folder("data")).key,
        "index": read_manifest(config.folder("index")).key,
        "model": fingerprint_path(Path(model)) if Path(model).is_dir() else model,
    }
    identity = {**config.evaluate.identity(), "seed": config.seed}
    # The fingerprint among the inputs says which model; the name of its folder does not change a score.
    identity.pop("model")
    return run_stage("evaluate", config.folder("evaluate"), identity, inputs, lambda work: _make(config, model, work))


def reranker_of(config: Experiment) -> str:
    """Folder or hub id of the model that the experiment evaluates.

    Raises:
        StageError: when it is the experiment's own and training has not finished.
    """
    if config.evaluate.model is not None:
        return resolve(config.evaluate.model)
    folder = config.folder("train")
    read_manifest(folder)
    return resolve(folder)


def sample_queries(collection: Collection, max_queries: int | None, seed: int) -> Collection:
    """The collection with its judged queries only, or a seeded sample of them.

    Raises:
        StageError: when no query is judged.
    """
    judged = set(collection.qrels["query_id"].to_pylist())
    query_ids = [name for name in collection.queries["query_id"].to_pylist() if name in judged]
    if not query_ids:
        raise StageError(
            f"{collection!r} has no judged queries to evaluate on; add qrels of that split, or name another one "
            "under data.test_split"
        )
    if max_queries is not None and max_queries < len(query_ids):
        # Sorted first: the sample must not depend on the order of the file.
        chosen = np.random.default_rng(seed).choice(sorted(query_ids), max_queries, replace=False)
        query_ids = chosen.tolist()
    return collection.with_queries(query_ids)


def retrieval_depth(depth: int, measures: Sequence[str]) -> int:
    """Documents a query that the first stage returns: enough for reranking and for the deepest measure."""
    cutoffs = [parse(measure).params.get("cutoff") for measure in measures]
    return max([depth, *(cutoff for cutoff in cutoffs if cutoff is not None)])


def _make(config: Experiment, model: str, work: Path) -> dict[str, Any]:
    settings = config.evaluate
    collection = sample_queries(open_collection(config.folder("data"), SPLIT), settings.max_queries, config.seed)
    log.info("evaluating %s on %d queries of %s", model, collection.queries.num_rows, collection.name)
    (work / "runs").mkdir(exist_ok=True)
    first, reranked = _retrieve_and_rerank(config, model, collection, work)
    runs = {name: stage.run for name, stage in first.items()}
    runs |= _final_lists(reranked.run, runs["retriever"], settings.scoring.interpolation)
    _write_runs(work, runs, first, collection.qrels)
    comparison = compare_runs(
        runs,
        collection.qrels,
        settings.measures,
        relevance_level=collection.relevance_level,
        permutations=settings.significance_permutations,
        seed=config.seed,
        baseline="retriever",
    )
    speed = _speed(first, reranked, collection.queries.num_rows)
    _write_results(config, model, work, collection, runs, comparison, speed)
    shutil.rmtree(work / SHARDS)
    return {
        "num_queries": collection.queries.num_rows,
        "means": comparison.means(),
        "significance": _headline(comparison),
        "pairs_per_second": speed["pairs_per_second"],
    }


def _retrieve_and_rerank(
    config: Experiment, model: str, collection: Collection, work: Path
) -> tuple[dict[str, FirstStage], Reranked]:
    settings = config.evaluate
    depth = retrieval_depth(settings.depth, settings.measures)
    first: dict[str, FirstStage] = {}
    if settings.bm25:
        first["bm25"] = _once(work / "runs" / "bm25.parquet", lambda: _bm25(collection, depth))
    with connected(config.ray):
        first["retriever"] = _once(
            work / "runs" / "retriever.parquet", lambda: _search(config.folder("index"), collection, depth)
        )
        reranked = rerank_distributed(
            model,
            first["retriever"].run,
            collection,
            settings.depth,
            # The retriever's score is mixed in afterwards, so that the cross-encoder is also measured alone.
            scoring=settings.scoring.model_copy(update={"interpolation": 0.0}),
            folder=work / SHARDS,
            num_workers=settings.num_workers,
            gpus_per_worker=settings.gpus_per_worker,
        )
    return first, reranked


def _final_lists(scored: pa.Table, first: pa.Table, weight: float) -> dict[str, pa.Table]:
    """``reranked`` is what a user gets; where that mixes in the retriever's score, the cross-encoder alone as well."""
    if weight == 0.0:
        return {"reranked": with_tail(scored, first)}
    alone, mixed = with_tail(scored, first), with_tail(interpolate(scored, first, weight), first)
    return {"cross-encoder": alone, "reranked": mixed}


def _bm25(collection: Collection, depth: int) -> pa.Table:
    from ranker.retrieval.bm25 import bm25_run

    return bm25_run(collection.corpus, collection.queries, depth)


def _search(index: Path, collection: Collection, depth: int) -> pa.Table:
    from ranker.retrieval.search import search_index

    return search_index(index, collection.queries, depth)


def _once(path: Path, make: Callable[[], pa.Table]) -> FirstStage:
    """What ``make`` returns, kept in ``path`` with its time; an interrupted call finds it there."""
    if not path.is_file():
        start = time.perf_counter()
        run = make().select(RUN.names)
        seconds = time.perf_counter() - start
        write_parquet(run.replace_schema_metadata({"seconds": str(seconds)}), path)
        log.info("%s: %d queries in %.1f s", path.stem, len(pc.unique(run["query_id"])), seconds)
    table = pq.read_table(path)
    return FirstStage(table.replace_schema_metadata(None), float((table.schema.metadata or {})[b"seconds"]))


def _write_runs(work: Path, runs: Mapping[str, pa.Table], first: Mapping[str, FirstStage], qrels: pa.Table) -> None:
    for name, run in runs.items():
        # Parquet keeps the scores as they are; the TREC file has scores that no tie rule can reorder.
        write_trec_run(order_run(run), work / "runs" / f"{name}.trec", name)
        if name not in first:  # those lie there already, with their times
            write_parquet(run, work / "runs" / f"{name}.parquet")
    write_trec_qrels(qrels, work / "qrels.trec")


def _speed(first: Mapping[str, FirstStage], reranked: Reranked, num_queries: int) -> dict[str, Any]:
    """What it took. Milliseconds a query of the first stage are of one batch of all queries."""
    latencies = sorted(reranked.latencies)
    return {
        "pairs": reranked.num_pairs,
        "pairs_per_second": round(reranked.pairs_per_second, 1),
        "workers": reranked.num_workers,
        "rerank_latency_ms": round(float(np.median(latencies)), 1) if latencies else None,
        "retrieval_ms_per_query": {name: round(1000 * run.seconds / num_queries, 2) for name, run in first.items()},
    }


def _headline(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """The first measure's tests: what a summary quotes."""
    measure = comparison.measures[0]
    return {
        baseline: {"measure": measure, "p_value": tests[measure].p_corrected, **asdict(tests[measure])}
        for baseline, tests in comparison.tests.items()
    }


def _write_results(
    config: Experiment,
    model: str,
    work: Path,
    collection: Collection,
    runs: Mapping[str, pa.Table],
    comparison: Comparison,
    speed: Mapping[str, Any],
) -> None:
    settings, measure = config.evaluate, comparison.measures[0]
    facts = {
        "experiment": config.name,
        "collection": config.data.source,
        "num_queries": collection.queries.num_rows,
        "num_documents": collection.documents.num_rows,
        "relevance_level": collection.relevance_level,
        "depth": settings.depth,
        "model": model,
        "interpolation": settings.scoring.interpolation,
        "permutations": settings.significance_permutations,
        "seed": config.seed,
    }
    write_json(work / "metrics.json", {**facts, **comparison.as_dict(), "speed": dict(speed)})
    write_parquet(comparison.per_query(), work / "per_query.parquet")
    save_change_plot(work / "change.png", comparison.change("retriever", measure), measure, "retriever", "reranked")
    write_text(work / "experiment.yaml", config.to_yaml())
    write_report(work, Report(facts, comparison, dict(speed), dict(runs), collection))
