"""The door: Ray Tune over the training stage, one trial one walk through ``fit`` into its own folder."""

import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray

from ranker.config import Experiment
from ranker.manifest import Done, StageError, run_stage, write_json, write_text
from ranker.measures import DEFAULT_MEASURES
from ranker.registry import nearest
from ranker.session import connected
from ranker.training.measure import has_dev
from ranker.tuning.bench import SLOTS, Bench
from ranker.tuning.mined import MINED
from ranker.tuning.plan import plan_trials, taken_by_others
from ranker.tuning.population import PARENT, recipe_of
from ranker.tuning.recipe import Recipe, absolute, groups_folder, mines, part_config, sources, trial_config
from ranker.tuning.records import MODEL, STARTED, TRIALS, tidy
from ranker.tuning.repeats import REPEATS, Repeat, gains, repeat
from ranker.tuning.report import REPORT, SweepReport, write_report
from ranker.tuning.runner import RAY_STATE, run_sweep
from ranker.tuning.search import plan_search
from ranker.tuning.space import Space
from ranker.tuning.space_check import checked_space
from ranker.tuning.trials import SweepError, Trial, best_trial, trials_table

log = logging.getLogger(__name__)

BEST_PARENT, BEST_MINE, FURTHER, TRASH = "best_parent", "best_mine", "models", ".trash"
# What best.json says beyond the outcome, for `ranker retrain`.
RECIPE = ("segments", "generations", "best_share")


def sweep(config: Experiment) -> Done:
    """Search the settings of training; what it found lies in ``config.folder("tune")``.

    ``best/`` is the best trial's model, ``best.yaml`` the whole experiment that makes it again, ``trials.parquet``
    every trial, ``report.html`` the same to look at, ``best.json`` what `ranker retrain` reads. A trial that fails is a
    row with its reason. The same call after a kill continues: finished trials are kept, running ones go on from their
    own checkpoints.

    Raises:
        SpaceError, ConfigError: for a space that cannot be, before anything starts.
        ResourceError: when a trial can never fit on the cluster. StageError: without groups or dev queries.
        SweepError: when no trial finished; the next call starts the sweep anew.
    """
    space = checked_space(config)
    _check_groups(config)
    # What the space file says decides, not what it is called; and the inputs say which model and groups.
    tuned = {**config.tune.identity(), "space": dict(space.plain)}
    left_out = ("model", "groups", "mix", "metric")
    trained = {name: value for name, value in config.train.identity().items() if name not in left_out}
    trained["mix"] = [mix.share for mix in config.train.mix]
    identity = {"tune": tuned, "train": trained, "seed": config.seed, "evaluate": config.evaluate.identity()}
    if mines(dict.fromkeys(space.paths)):
        identity["mine"] = config.mine.identity()
    return run_stage("tune", config.folder("tune"), identity, sources(config), lambda work: _make(config, space, work))


def _check_groups(config: Experiment) -> None:
    metric, groups = config.tune.metric, groups_folder(config)
    if metric not in DEFAULT_MEASURES:
        hint = nearest(metric, list(DEFAULT_MEASURES))
        raise StageError(f"tune.metric {metric!r} is not measured in training; {hint}")
    if not has_dev(groups):
        raise StageError(
            f"{groups}: no dev queries (dev_groups.parquet and dev_qrels.parquet), so that trials cannot be compared; "
            "set mine.num_dev_queries above 0 on data with a dev split, and mine again"
        )


def _make(config: Experiment, space: Space, work: Path) -> dict[str, Any]:
    # The report is written last: what is left of a sweep that has one is to throw away what it worked with.
    if not (work / REPORT).is_file():
        _run(config, space, work)
    _throw_away(work, (RAY_STATE, STARTED, TRIALS, SLOTS, MINED, REPEATS))
    told = json.loads((work / "best.json").read_text("utf-8"))
    return {name: value for name, value in told.items() if name not in RECIPE}


def _run(config: Experiment, space: Space, work: Path) -> None:
    # What decides between trials also decides between the weights of one.
    # And checkpoints lie beside each model, where they go with it: elsewhere those of stopped trials would stay.
    base = absolute(config).with_overrides({"train.metric": config.tune.metric, "train.storage": None})
    with connected(config.ray):
        bench, trials = _search(base, space, work)
        best = _decide(bench, trials)
        recipe = recipe_of(work / TRIALS / best.folder)
        _leave(bench, trials, best)
        write_text(work / "best.yaml", best_config(config, recipe).to_yaml())
        repeats = repeat(bench, recipe) if base.tune.num_seeds else []
    told = {**_outcome(trials, best, repeats), **recipe.plain(), "best_share": best.best_share}
    write_json(work / "best.json", told)
    write_report(work, SweepReport.of(config, space, trials, best, repeats))


def _throw_away(work: Path, names: tuple[str, ...]) -> None:
    """Delete folders that belong together: none is ever half there, wherever a kill falls."""
    trash = work / TRASH
    trash.mkdir(exist_ok=True)
    for name in names:
        if (work / name).exists():
            shutil.rmtree(trash / name, ignore_errors=True)
            (work / name).rename(trash / name)
    shutil.rmtree(trash, ignore_errors=True)


def _search(base: Experiment, space: Space, work: Path) -> tuple[Bench, list[Trial]]:
    settings = base.tune
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    widest = {
        f"train.{name}": space.largest(f"train.{name}", getattr(base.train, name))
        for name in ("num_workers", "cpus_per_worker", "gpus_per_worker")
    }
    num_trials = len(space.grid(base)) if settings.search == "grid" else settings.num_trials
    # Members of a population and of a HyperBand are all there at once, although few of them train.
    drivers = num_trials if settings.search == "pbt" or settings.scheduler == "hyperband" else None
    train = base.train.model_copy(update={name.rpartition(".")[2]: value for name, value in widest.items()})
    plan = plan_trials(train, nodes, num_trials, settings.max_concurrent, drivers=drivers)
    if (told := taken_by_others(train, plan, ray.cluster_resources(), ray.available_resources())) is not None:
        log.warning("%s", told)
    if plan.cpus_per_worker != widest["train.cpus_per_worker"]:
        base = base.with_overrides({"train.cpus_per_worker": plan.cpus_per_worker})
    bench = Bench(base, work, plan.concurrent)
    search = plan_search(space, base, plan.concurrent)
    log.info("%d trials (%s), %d at once", search.num_trials, settings.search, plan.concurrent)
    return bench, run_sweep(bench, space, search, settings.search, settings.time_budget_s)


def _decide(bench: Bench, trials: list[Trial]) -> Trial:
    settings, work = bench.base.tune, bench.work
    try:
        best = best_trial(trials, settings.metric, settings.max_latency_ms)
    except SweepError:
        _throw_away(work, (RAY_STATE, STARTED, TRIALS, SLOTS))  # Tune first, which would not try them again
        raise
    if settings.max_latency_ms is not None and (best.latency_ms or 0) > settings.max_latency_ms:
        log.warning("no trial takes at most %g ms a query; the fastest, %g ms, is the best here",
                    settings.max_latency_ms, best.latency_ms)  # fmt: skip
    return best


def _leave(bench: Bench, trials: list[Trial], best: Trial) -> None:
    """Write the table, and move the models that stay, with what the best was made from, out of their trials."""
    work, base = bench.work, bench.base
    table = trials_table(trials, base.tune.metric)
    pq.write_table(table, work / ".trials.tmp")
    (work / ".trials.tmp").replace(work / "trials.parquet")
    tidy(work, base.tune.keep_best, most_ms=base.tune.max_latency_ms)
    source = work / TRIALS / best.folder
    if not (work / "best").exists():
        (source / MODEL).rename(work / "best")
    if (source / PARENT).exists():
        (source / PARENT).rename(work / BEST_PARENT)
    mined = trial_config(base, best.overrides, source, work / MINED).folder("mine")
    if mined.is_relative_to(work) and mined.exists() and not (work / BEST_MINE).exists():
        shutil.copytree(mined, work / f".{BEST_MINE}", dirs_exist_ok=True)  # the repeats still read it there
        (work / f".{BEST_MINE}").rename(work / BEST_MINE)
    for folder in (work / TRIALS).glob(f"*/{MODEL}"):
        (work / FURTHER).mkdir(exist_ok=True)
        folder.rename(work / FURTHER / folder.parent.name)


def best_config(config: Experiment, recipe: Recipe) -> Experiment:
    """The whole experiment that makes the best trial's model again, into its own folder of stage `train`."""
    changes = {**recipe.overrides, "train.metric": config.tune.metric}
    if mines(recipe.overrides):
        changes["mine.output_dir"] = str(config.folder("tune") / BEST_MINE)
    changed = config.with_overrides(changes)
    if recipe.generations > 1:
        parent = config.folder("tune") / BEST_PARENT if len(recipe.segments) > 1 else None
        return part_config(changed, len(recipe.segments) - 1, recipe.generations, parent)
    return changed


def _outcome(trials: list[Trial], best: Trial, repeats: list[Repeat]) -> dict[str, Any]:
    return {
        "num_trials": len(trials),
        "num_stopped": sum(trial.status == "stopped" for trial in trials),
        "num_failed": sum(trial.status == "failed" for trial in trials),
        "best_trial": best.trial_id,
        "overrides": json.loads(json.dumps(dict(best.overrides))),
        "dev": dict(best.measures),
        "latency_ms": best.latency_ms,
        "repeats": [told.plain() for told in repeats],
        "gain": {
            where: {name: _known(getattr(gain, name)) for name in ("gain", "low", "high", "noise", "real")}
            for where, gain in gains(repeats).items()
        },
    }


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
