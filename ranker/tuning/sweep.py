"""The door: Ray Tune over the training stage, one trial one walk through ``fit`` into its own folder."""

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
# Tune's own tables go to standard output, where a job writes its result as JSON.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")

import pyarrow.parquet as pq
import ray
from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher

from ranker.config import Experiment
from ranker.manifest import Done, StageError, fingerprint_path, read_manifest, run_stage, write_json, write_text
from ranker.measures import DEFAULT_MEASURES
from ranker.pretrained import resolve
from ranker.registry import nearest
from ranker.session import connected
from ranker.tuning.plan import DRIVER_CPUS, Plan, plan_trials
from ranker.tuning.space import Space, load_space
from ranker.tuning.trials import SweepError, Trial, best_trial, progress_line, trials_table

log = logging.getLogger(__name__)

STATE, NAME, TRIALS = "ray", "sweep", "trials"
SETTINGS, FAILED = "overrides.json", "error.txt"


def sweep(config: Experiment) -> Done:
    """``trials.parquet``, ``best.yaml`` and the best trial's model in ``config.folder("tune")``.

    A trial that fails is a row with its reason. The same call after a kill continues: finished trials are kept,
    running ones go on from their own checkpoints.

    Raises:
        SpaceError, ConfigError: for a space that cannot be, before anything starts.
        ResourceError: when a trial can never fit on the cluster. StageError: without groups or dev queries.
        SweepError: when every trial failed; the next call starts the sweep anew.
    """
    space = load_space(config.tune.space)
    space.check(config)
    groups = _groups_folder(config)
    _check_metric(config.tune.metric, groups)
    model = resolve(config.train.model)
    inputs = {
        "groups": fingerprint_path(groups),
        "model": fingerprint_path(Path(model)) if Path(model).is_dir() else model,
    }
    # What the space file says decides, not what it is called; and the inputs say which model and groups.
    tuned = {**config.tune.identity(), "space": dict(space.plain)}
    trained = {name: value for name, value in config.train.identity().items() if name not in ("model", "groups")}
    identity = {"tune": tuned, "train": trained, "seed": config.seed}
    return run_stage("tune", config.folder("tune"), identity, inputs, lambda work: _make(config, space, work))


def _groups_folder(config: Experiment) -> Path:
    if config.train.groups is None:
        read_manifest(config.folder("mine"))
        return config.folder("mine")
    named = Path(config.train.groups).expanduser().absolute()
    return named if named.is_dir() else named.parent


def _check_metric(metric: str, groups: Path) -> None:
    if metric not in DEFAULT_MEASURES:
        hint = nearest(metric, list(DEFAULT_MEASURES))
        raise StageError(f"tune.metric {metric!r} is not measured in training; {hint}")
    if not (groups / "dev_groups.parquet").is_file():
        raise StageError(
            f"{groups}: no dev_groups.parquet, so that trials cannot be compared; set mine.num_dev_queries above 0 on "
            "data with a dev split, and mine again"
        )


def absolute(config: Experiment) -> Experiment:
    """The experiment with absolute folders: a trial runs in another working directory."""
    changes: dict[str, Any] = {
        "output_dir": str(Path(config.output_dir).expanduser().absolute()),
        "mine.output_dir": str(config.folder("mine")),
        "train.model": resolve(config.train.model),
    }
    if config.train.groups is not None:
        changes["train.groups"] = str(Path(config.train.groups).expanduser().absolute())
    return config.with_overrides(changes)


def run_trial(base: Experiment, overrides: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Train with ``overrides`` into ``folder/model``; what the trial reports. A failure leaves ``error.txt``."""
    from ranker.training.trainer import fit

    try:
        outcome = fit(base.with_overrides({**overrides, "train.output_dir": str(folder / "model")})).outcome
    except Exception as error:
        write_text(folder / FAILED, f"{type(error).__name__}: {error}")
        raise
    return {**{name: float(value) for name, value in outcome["dev"].items()}, "seconds": outcome.get("seconds")}


def _make(config: Experiment, space: Space, work: Path) -> dict[str, Any]:
    metric = config.tune.metric
    with connected(config.ray):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        plan = plan_trials(config.train, nodes, config.tune.num_trials, config.tune.max_concurrent)
        log.info("%d trials, %d at once", config.tune.num_trials, plan.concurrent)
        grid = _tuner(config, space, plan, work).fit()
        results = [grid[number] for number in range(len(grid))]
    trials = [_read_trial(result, space, work) for result in results]
    try:
        best = best_trial(trials, metric)
    except SweepError:
        shutil.rmtree(work / STATE)
        shutil.rmtree(work / TRIALS, ignore_errors=True)
        raise
    return _leave(config, work, trials, best)


def _tuner(config: Experiment, space: Space, plan: Plan, work: Path) -> tune.Tuner:
    base = absolute(config).with_overrides({"train.cpus_per_worker": plan.cpus_per_worker})

    def trial(sample: dict[str, Any]) -> None:
        folder, overrides = work / TRIALS / tune.get_context().get_trial_id(), space.overrides(sample)
        folder.mkdir(parents=True, exist_ok=True)
        # Tune forgets the settings of a failed trial when it restores a sweep.
        write_json(folder / SETTINGS, overrides)
        tune.report(run_trial(base, overrides, folder))

    trainable = tune.with_resources(trial, {"CPU": DRIVER_CPUS})
    state = work / STATE / NAME
    if tune.Tuner.can_restore(str(state)):
        log.info("continuing the sweep that stopped in %s", state)
        return tune.Tuner.restore(str(state), trainable=trainable)
    run: dict[str, Any] = {
        "name": NAME,
        "storage_path": str(work / STATE),
        "verbose": 0,
        "callbacks": [Progress(space.overrides, config.tune.num_trials, config.tune.metric)],
    }
    settings = tune.TuneConfig(
        metric=config.tune.metric,
        mode="max",
        num_samples=config.tune.num_trials,
        max_concurrent_trials=None if config.tune.search == "random" else plan.concurrent,
        search_alg=searcher(config, plan.concurrent),
        trial_dirname_creator=_trial_name,
    )
    varied = dict(space.sampled)
    return tune.Tuner(trainable, param_space=varied, tune_config=settings, run_config=tune.RunConfig(**run))


def searcher(config: Experiment, concurrent: int) -> Searcher | SearchAlgorithm:
    """The seeded search that ``tune.search`` names; a random one holds the cap of ``concurrent`` trials itself."""
    if config.tune.search == "random":
        return BasicVariantGenerator(max_concurrent=concurrent, random_state=config.seed)
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(metric=config.tune.metric, mode="max", seed=config.seed)


def _trial_name(trial: RayTrial) -> str:
    return str(trial.trial_id)


class Progress(tune.Callback):
    """A line in the log for every trial that ends."""

    def __init__(self, overrides: Callable[[Mapping[str, Any]], dict[str, Any]], num_trials: int, metric: str) -> None:
        self.overrides, self.num_trials, self.metric = overrides, num_trials, metric
        self.done, self.best = 0, -math.inf

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Count it and compare it with the best so far."""
        result = trial.last_result or {}
        measures = {self.metric: float(result.get(self.metric, math.nan))}
        self._say(Trial(str(trial.trial_id), self.overrides(trial.config), measures))

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Count it and say why."""
        reason = str(trial.get_error() or "the trial's process was lost")
        self._say(Trial(str(trial.trial_id), self.overrides(trial.config), error=reason))

    def _say(self, trial: Trial) -> None:
        self.done += 1
        self.best = max(self.best, trial.value(self.metric))
        log.info("%s", progress_line(trial, self.done, self.num_trials, self.metric, self.best))


def _read_trial(result: Any, space: Space, work: Path) -> Trial:
    trial_id = Path(result.path).name
    metrics, error = result.metrics or {}, None
    settings, told = work / TRIALS / trial_id / SETTINGS, work / TRIALS / trial_id / FAILED
    if settings.is_file():
        overrides = json.loads(settings.read_text("utf-8"))
    else:  # never started
        overrides = space.overrides(result.config) if result.config else {}
    if result.error is not None:
        error = told.read_text("utf-8") if told.is_file() else str(result.error)
    measures = {name: float(metrics[name]) for name in DEFAULT_MEASURES if metrics.get(name) is not None}
    return Trial(trial_id, overrides, measures, metrics.get("seconds"), error)


def _leave(config: Experiment, work: Path, trials: list[Trial], best: Trial) -> dict[str, Any]:
    """Write the table, the best config and model; drop the other trials' weights and Tune's own state."""
    metric = config.tune.metric
    pq.write_table(trials_table(trials, metric), work / "trials.parquet")
    write_text(work / "best.yaml", config.with_overrides(best.overrides).to_yaml())
    write_json(work / "best.json", {"trial_id": best.trial_id, "overrides": best.overrides, "dev": best.measures})
    if not (work / "best").exists():
        (work / TRIALS / best.trial_id / "model").rename(work / "best")
    shutil.rmtree(work / TRIALS)
    shutil.rmtree(work / STATE)
    return {
        "num_trials": len(trials),
        "num_failed": sum(trial.error is not None for trial in trials),
        "best_trial": best.trial_id,
        "overrides": best.overrides,
        "dev": best.measures,
    }
