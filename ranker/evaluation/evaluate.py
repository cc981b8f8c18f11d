"""The door: first stages and rerankers on the test queries, side by side, with everything to check it."""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from ranker.config import EvaluateConfig, Experiment
from ranker.data.catalog import open_collection
from ranker.data.formats import write_trec_qrels, write_trec_run
from ranker.data.identity import source_fingerprint
from ranker.evaluation.again import MADE, file_name, standing
from ranker.evaluation.candidates import known_rows, own_candidates, sample_queries
from ranker.evaluation.comparison import Comparison
from ranker.evaluation.report import Report, write_report
from ranker.evaluation.runs import open_run, run_name
from ranker.evaluation.systems import FirstStage, Measured, depths_of, measure, once, retrieval_depth
from ranker.evaluation.tasks import write_parquet
from ranker.manifest import Done, StageError, fingerprint_path, read_manifest, run_stage, write_json, write_text
from ranker.measures import order_run, parse
from ranker.pretrained import resolve
from ranker.schemas import Collection

log = logging.getLogger(__name__)

SPLIT = "test"


def evaluate(config: Experiment) -> Done:
    """Runs, metrics and the report of the test queries in ``config.folder("evaluation")``.

    An interrupted call keeps the first stage's runs and every scored task. With ``evaluate.suite`` several collections
    are measured, each in a folder of its own, and their mean.

    Raises:
        StageError: when data, index or model are not finished, or there are no judged test queries.
        MeasureError: for an unknown measure, before anything runs.
    """
    settings = config.evaluate
    for name in settings.measures:
        parse(name)
    check_first_stage(settings)
    models = [reranker_of(config), *(resolve(model) for model in settings.models)]
    keys = [fingerprint_path(Path(model)) if Path(model).is_dir() else model for model in models]
    inputs = {"model": keys[0], **{f"model {number}": key for number, key in enumerate(keys[1:], 2)}}
    identity = {**settings.identity(), "seed": config.seed}
    # Fingerprints among the inputs say which models; the names of their folders do not change a score.
    identity.pop("model")
    identity.pop("models")
    if settings.first_stage not in MADE:
        inputs["run"] = fingerprint_path(Path(settings.first_stage).expanduser())
    if settings.suite is not None:
        from ranker.evaluation.suite import make_suite, sources_of

        sources = sources_of(settings.suite)
        inputs |= {f"data {name}": source_fingerprint(source, {}, quick=True) for name, source in sources.items()}
        if settings.first_stage == "retriever":
            identity["index"] = config.index.identity()
        return run_stage(
            "evaluate",
            config.folder("evaluate"),
            identity,
            inputs,
            lambda work: make_suite(config, models, sources, work),
        )
    inputs["data"] = read_manifest(config.folder("data")).key
    if settings.first_stage == "retriever":
        inputs["index"] = read_manifest(config.folder("index")).key
    return run_stage("evaluate", config.folder("evaluate"), identity, inputs, lambda work: _make(config, models, work))


def check_first_stage(settings: EvaluateConfig) -> None:
    """Raises StageError where the first stage is neither known nor a file, or cannot serve a suite."""
    named = settings.first_stage
    if named not in MADE and not Path(named).expanduser().is_file():
        raise StageError(
            f"evaluate.first_stage {named!r}: no such run file; write retriever, bm25, candidates, or its path"
        )
    if settings.suite is not None and named not in MADE:
        raise StageError(
            f"evaluate.suite: each collection needs a first stage of its own, which the run {named!r} is not; "
            "set evaluate.first_stage to retriever, bm25 or candidates"
        )


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


def _make(config: Experiment, models: list[str], work: Path) -> dict[str, Any]:
    collection = open_collection(config.folder("data"), SPLIT)
    return make_one(config, models, collection, config.data.source, work)


def make_one(config: Experiment, models: list[str], whole: Collection, source: str, work: Path) -> dict[str, Any]:
    """Measure on one collection and leave everything in ``work``; its outcome."""
    settings = config.evaluate
    collection = sample_queries(whole, settings.max_queries, config.seed)
    log.info("evaluating %s on %d queries of %s", models[0], collection.queries.num_rows, collection.name)
    base, first = first_stages(config, collection, work / "runs")
    measured = measure(collection, first, base, models, settings, work, config.ray, config.seed)
    _write_runs(work, measured)
    _write_results(config, models, source, work, measured)
    shutil.rmtree(work / "scoring")
    speed = measured.speed()
    return {
        "num_queries": collection.queries.num_rows,
        "means": measured.comparison.means(),
        "significance": _headline(measured.comparison),
        "pairs_per_second": speed["pairs_per_second"],
    }


def first_stages(
    config: Experiment, collection: Collection, runs: Path
) -> tuple[str, dict[str, Callable[[], FirstStage]]]:
    """The name of the first stage that is reranked, and how each one is had."""
    settings = config.evaluate
    named = settings.first_stage
    depth = retrieval_depth(max(depths_of(settings)), settings.measures)
    found: dict[str, Callable[[], FirstStage]] = {}
    if settings.bm25 or named == "bm25":
        found["bm25"] = lambda: once(runs / "bm25.parquet", lambda: _bm25(collection, depth))
    if named == "retriever":
        index = config.folder("index")
        found["retriever"] = lambda: once(runs / "retriever.parquet", lambda: _search(index, collection, depth))
    elif named == "candidates":
        found["candidates"] = lambda: FirstStage(_candidates(collection), None)
    elif named != "bm25":
        name = (
            run_name(named) if run_name(named) not in (*MADE, "reranked", "cross-encoder") else f"{run_name(named)}-run"
        )
        found[name] = lambda: FirstStage(_of_queries(open_run(named), collection), None)
    return list(found)[-1], found


def _bm25(collection: Collection, depth: int) -> pa.Table:
    from ranker.retrieval.bm25 import bm25_run

    return bm25_run(collection.corpus, collection.queries, depth)


def _search(index: Path, collection: Collection, depth: int) -> pa.Table:
    from ranker.retrieval.search import search_index

    return search_index(index, collection.queries, depth)


def _candidates(collection: Collection) -> pa.Table:
    run = own_candidates(collection)
    if run is None:
        raise StageError(
            f"{collection!r} brings no candidates of its own; set evaluate.first_stage to bm25 or retriever"
        )
    return run


def _of_queries(run: pa.Table, collection: Collection) -> pa.Table:
    """A given RUN for the collection's queries, without documents that the corpus lacks, which are counted and told."""
    found = known_rows(run, collection)
    if not found.num_rows:
        raise StageError(
            f"{collection!r}: the run holds none of its judged queries; name a run of these in evaluate.first_stage"
        )
    return found


def _write_runs(work: Path, measured: Measured) -> None:
    for name, run in measured.runs.items():
        # Parquet keeps the scores as they are; the TREC file has scores that no tie rule can reorder.
        write_trec_run(order_run(run), work / "runs" / f"{file_name(name)}.trec", file_name(name))
        parquet = work / "runs" / f"{file_name(name)}.parquet"
        if not parquet.is_file():  # a first stage lies there already, with its time
            write_parquet(run, parquet)
    write_trec_qrels(measured.collection.qrels, work / "qrels.trec")


def _headline(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """The first measure's tests: what a summary quotes."""
    measure = comparison.measures[0]
    return {
        other: {"measure": measure, "p_value": tests[measure].p_corrected, **asdict(tests[measure])}
        for other, tests in comparison.tests.items()
    }


def _write_results(config: Experiment, models: list[str], source: str, work: Path, measured: Measured) -> None:
    settings, comparison, collection = config.evaluate, measured.comparison, measured.collection
    facts: Mapping[str, Any] = {
        "experiment": config.name,
        "collection": source,
        "num_queries": collection.queries.num_rows,
        "num_documents": collection.documents.num_rows,
        "relevance_level": measured.relevance_level,
        "first_stage": measured.base,
        "depth": depths_of(settings)[0],
        "depths": list(depths_of(settings)),
        "model": models[0],
        "models": models[1:],
        "interpolation": settings.scoring.interpolation,
        "missed_positives_reranked": settings.rerank_missed_positives,
        "permutations": settings.significance_permutations,
        "seed": config.seed,
    }
    speed = measured.speed()
    write_json(work / "metrics.json", {**facts, **comparison.as_dict(), "speed": speed})
    write_parquet(comparison.per_query(), work / "per_query.parquet")
    write_text(work / "experiment.yaml", standing(config, models).to_yaml())
    write_report(work, Report(dict(facts), comparison, measured.runs, collection.qrels, collection, speed))
