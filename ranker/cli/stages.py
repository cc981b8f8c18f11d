"""Which door a verb walks through, and which stages must be whole before it."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ranker.cli.errors import explain
from ranker.cli.progress import show_progress
from ranker.config import Experiment, Stage, load_experiment
from ranker.manifest import MANIFEST, Done, read_manifest
from ranker.pretrained import resolve
from ranker.session import one_cluster

log = logging.getLogger(__name__)


class Door(NamedTuple):
    """A stage as the command line sees it: ``module:function``, what it does, and the stages it reads.

    ``check`` names a function that finds mistakes before the stages in front of this one have run.
    """

    function: str
    purpose: str
    needs: tuple[Stage, ...]
    check: str | None = None


DOORS: dict[Stage, Door] = {
    "data": Door("ranker.data.catalog:prepare", "read the collection", ()),
    "index": Door("ranker.retrieval.index:build_index", "embed the corpus into a vector index", ("data",)),
    "mine": Door("ranker.training.mining:mine", "mine hard negatives", ("data", "index")),
    "train": Door("ranker.training.trainer:fit", "fine-tune the cross-encoder", ("mine",)),
    "tune": Door(
        "ranker.tuning.sweep:sweep", "search hyper-parameters", ("mine",), "ranker.tuning.space_check:check_sweep"
    ),
    "evaluate": Door("ranker.evaluation.evaluate:evaluate", "evaluate on the test queries", ("data", "index", "train")),
    "export": Door("ranker.optimization.export:export", "export to ONNX and check it", ("train",)),
}
PIPELINE: tuple[Stage, ...] = ("data", "index", "mine", "train", "evaluate", "export")


def open_door(stage: Stage) -> Callable[[Experiment], Done]:
    """The stage's function; its room is imported now and not before."""
    door: Callable[[Experiment], Done] = _named(DOORS[stage].function)
    return door


def _named(function: str) -> Any:
    module, _, name = function.partition(":")
    return getattr(import_module(module), name)


def plan(stage: Stage, config: Experiment) -> list[Stage]:
    """The stage and, before it, all that it reads, each once, in order.

    Left out is what the config says comes from elsewhere: a finished folder named by ``output_dir``, groups or a
    model named by path.
    """
    order: list[Stage] = []
    for need in DOORS[stage].needs:
        if not _given(stage, need, config):
            order += [step for step in plan(need, config) if step not in order]
    return [*order, stage]


def _given(stage: Stage, need: Stage, config: Experiment) -> bool:
    if need == "mine" and config.train.groups is not None:
        return True
    if need == "train" and getattr(getattr(config, stage), "model", None) is not None:
        return True
    if stage == "evaluate" and need in _unread(config):
        return True
    named = getattr(config, need).output_dir is not None
    return named and (config.folder(need) / MANIFEST).is_file()


def _unread(config: Experiment) -> set[Stage]:
    """Stages that `evaluate` does without: the index where another first stage is named, data where a suite is."""
    unread: set[Stage] = set() if config.evaluate.first_stage == "retriever" else {"index"}
    return unread | {"data"} if config.evaluate.suite is not None else unread


def run(stage: Stage, config: Experiment, announce: Callable[[Stage, int, int], None] | None = None) -> Done:
    """Walk through every door of the plan; what is already done is skipped."""
    steps = plan(stage, config)
    _check_models(steps, config)
    if (check := DOORS[stage].check) is not None:
        _named(check)(config)
    done: Done | None = None
    with one_cluster():
        for number, step in enumerate(steps, start=1):
            if announce:
                announce(step, number, len(steps))
            done = open_door(step)(config)
    if done is None:  # a plan always ends with the stage itself
        raise AssertionError(stage)
    return done


def run_all(config: Experiment) -> list[Done]:
    """The whole pipeline, in one cluster."""
    with one_cluster():
        return [run(stage, config) for stage in PIPELINE]


def _check_models(steps: list[Stage], config: Experiment) -> None:
    """Find a missing model folder before the stages in front of it have run.

    Raises:
        ModelNotFoundError: naming the folder.
    """
    for step in steps:
        section = getattr(config, step)
        for named in (getattr(section, "model", None), *getattr(section, "models", ())):
            if named is not None:
                resolve(named)


def finished(stage: Stage, config: Experiment) -> Done:
    """What a stage left behind, without running it.

    Raises:
        StageError: where it is not whole.
    """
    folder = config.folder(stage)
    return Done(folder, read_manifest(folder), skipped=True)


def main(stage: Stage | None, description: str | None, arguments: Iterable[str] | None = None) -> None:
    """Main function of a job script: config file in, the result as JSON on standard output, exit status 1 on error.

    ``stage`` None runs the whole pipeline.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", type=Path, help="experiment file, for instance jobs/quickstart.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override, train.lora.r=8")
    if stage == "tune":
        parser.add_argument("--space", help="file of dotted config paths and samplers; short for --set tune.space=")
    given = parser.parse_args(None if arguments is None else list(arguments))
    overrides = [*given.set, *([f"tune.space={given.space}"] if getattr(given, "space", None) else [])]
    with show_progress(), explain():
        config = load_experiment(given.config, overrides)
        results = [done.summary() for done in ([run(stage, config)] if stage else run_all(config))]
        sys.stdout.write(json.dumps(results[0] if stage else results, indent=2, ensure_ascii=False) + "\n")
