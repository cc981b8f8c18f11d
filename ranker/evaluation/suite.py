"""Several collections and their mean, as NanoBEIR and BEIR report it."""

import json
import logging
from pathlib import Path
from typing import Any

from ranker.config import Experiment
from ranker.data.catalog import load, open_collection, prepare
from ranker.evaluation.evaluate import make_one
from ranker.evaluation.suite_page import write_suite_pages
from ranker.manifest import StageError, write_json
from ranker.schemas import Collection
from ranker.session import one_cluster

log = logging.getLogger(__name__)

# In a collection's folder when it is whole.
OUTCOME = "outcome.json"
# Beside the experiment's own stages: data and index of each collection, where the retriever is the first stage.
STAGES = "suite"


def sources_of(suite: str | tuple[str, ...]) -> dict[str, str]:
    """Name -> source of each collection: those that are listed, or the subfolders and zips of a folder, by name.

    Raises:
        StageError: where there is none, or two have one name.
    """
    folder = Path(suite).expanduser() if isinstance(suite, str) else None
    if folder is not None and folder.is_dir():
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        listed = [str(entry) for entry in entries if entry.is_dir() or entry.suffix == ".zip"]
    else:
        listed = [suite] if isinstance(suite, str) else list(suite)
    named: dict[str, str] = {}
    for source in listed:
        name = (
            Path(source).name.removesuffix(".zip") if Path(source).expanduser().exists() else source.replace("/", "-")
        )
        if name in named:
            raise StageError(f"evaluate.suite: {named[name]} and {source} are both called {name}; rename one")
        named[name] = source
    if not named:
        raise StageError(f"evaluate.suite: {suite} holds no subfolder and no zip; put one collection in each")
    return named


def make_suite(config: Experiment, models: list[str], sources: dict[str, str], work: Path) -> dict[str, Any]:
    """Measure on every collection, each into ``work/NAME``; collections that are whole are not measured again."""
    outcomes: dict[str, dict[str, Any]] = {}
    with one_cluster():
        for number, (name, source) in enumerate(sources.items(), 1):
            folder = work / name
            if not (folder / OUTCOME).is_file():
                log.info("collection %d of %d: %s", number, len(sources), name)
                folder.mkdir(parents=True, exist_ok=True)
                member = member_of(config, name, source)
                collection = _open(member, source)
                write_json(folder / OUTCOME, make_one(member, models, collection, source, folder))
            outcomes[name] = json.loads((folder / OUTCOME).read_text("utf-8"))
    means = mean_of({name: outcome["means"] for name, outcome in outcomes.items()})
    metrics = {
        "experiment": config.name,
        "models": models,
        "collections": list(outcomes),
        "means": means,
        "by_collection": {name: outcome["means"] for name, outcome in outcomes.items()},
        "significance": {name: outcome["significance"] for name, outcome in outcomes.items()},
        "num_queries": {name: outcome["num_queries"] for name, outcome in outcomes.items()},
    }
    write_json(work / "metrics.json", metrics)
    write_suite_pages(work, metrics)
    return {
        "collections": len(outcomes),
        "num_queries": sum(outcome["num_queries"] for outcome in outcomes.values()),
        "means": means,
    }


def member_of(config: Experiment, name: str, source: str) -> Experiment:
    """The same experiment on one collection of a suite; its data and index lie in ``output_dir/suite/NAME``."""
    return config.with_overrides({
        "name": f"{config.name}: {name}",
        "output_dir": str(Path(config.output_dir) / STAGES / name),
        "data.source": source, "data.options": {}, "data.output_dir": None, "index.output_dir": None,
        "data.test_split": config.evaluate.suite_split, "evaluate.suite": None, "evaluate.output_dir": None,
    })  # fmt: skip


def _open(member: Experiment, source: str) -> Collection:
    if member.evaluate.first_stage != "retriever":
        return load(source, member.evaluate.suite_split)
    from ranker.retrieval.index import build_index

    prepare(member)
    build_index(member)
    return open_collection(member.folder("data"), "test")


def mean_of(means: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """System -> measure -> unweighted mean over the collections, of the systems that all of them have."""
    first = next(iter(means.values()))
    systems = [system for system in first if all(system in found for found in means.values())]
    return {
        system: {
            measure: sum(found[system][measure] for found in means.values()) / len(means) for measure in first[system]
        }
        for system in systems
    }
