"""Ray Tune around the trials: started, watched, restored after a kill; what it leaves on the disk is bounded."""

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
# Tune's own tables go to standard output, where a job writes its result as JSON.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# A killed driver loses no more than a second of Tune's memory; a snapshot of some trials takes milliseconds.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")
# What a trial tells lies in its own folder; CSV, JSON and TensorBoard files would keep handles open besides.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

from ray import tune
from ray.tune.experiment import Trial as RayTrial

from ranker.tuning.bench import Bench
from ranker.tuning.mined import drop_mined
from ranker.tuning.plan import DRIVER_CPUS
from ranker.tuning.records import (
    FAILED,
    OUTCOME,
    PARTIAL,
    SETTINGS,
    STOPPED,
    TRIALS,
    WAITING,
    folder_of,
    note_stop,
    read_ended,
    started_trials,
    tidy,
)
from ranker.tuning.reservations import free, free_reservation, reservations
from ranker.tuning.search import Search
from ranker.tuning.space import Space
from ranker.tuning.trainable import make_trainable
from ranker.tuning.trial import LOSSES
from ranker.tuning.trials import Status, Trial, progress_line

log = logging.getLogger(__name__)

RAY_STATE = "ray"
# Tune's loop turns many times a second.
SECONDS_BETWEEN_LOOKS = 5.0


def run_sweep(bench: Bench, space: Space, search: Search, name: str, seconds: float | None = None) -> list[Trial]:
    """Run the trials of a search, or those that are left of it; all trials in the order in which they began.

    Args:
        name: of Tune's own folder. seconds: after which all trials end.
    """
    trainable = tune.with_resources(make_trainable(bench, space), {"CPU": DRIVER_CPUS})
    folder = bench.work / RAY_STATE / name
    if tune.Tuner.can_restore(str(folder)):
        log.info("continuing the sweep that stopped in %s", folder)
        tuner = tune.Tuner.restore(str(folder), trainable=trainable, param_space=search.param_space or None)
    else:
        settings = tune.TuneConfig(
            num_samples=search.num_samples, search_alg=search.algorithm, scheduler=search.scheduler,
            max_concurrent_trials=bench.slots if search.capped else None,
            time_budget_s=seconds, reuse_actors=search.reuses, trial_dirname_creator=_trial_name,
        )  # fmt: skip
        run = tune.RunConfig(
            name=name, storage_path=str(bench.work / RAY_STATE), verbose=0,
            callbacks=[Watch(bench, search.num_trials)], stop=search.stop or None,
            failure_config=tune.FailureConfig(max_failures=LOSSES),
        )  # fmt: skip
        tuner = tune.Tuner(trainable, param_space=search.param_space, tune_config=settings, run_config=run)
    before = reservations()
    grid = tuner.fit()
    # Of trials that the time budget or a lost node ended before they could leave word of it.
    for name in reservations() - before:
        free(name)
    results = [grid[number] for number in range(len(grid))]
    errors = {Path(result.path).name: str(result.error) for result in results if result.path and result.error}
    return read_trials(bench, errors)


def _trial_name(trial: RayTrial) -> str:
    return str(trial.trial_id)


class Watch(tune.Callback):
    """A line in the log for every trial that ends, and the weights of all but the best deleted.

    It knows nothing that is not in the files, so that one which Tune has restored goes on counting.
    """

    def __init__(self, bench: Bench, num_trials: int) -> None:
        self.bench, self.num_trials = bench, num_trials
        self._looked = 0.0

    def on_step_end(self, iteration: int, trials: list[RayTrial], **info: Any) -> None:
        """Say which trials wait for cores that another program holds."""
        if (now := time.monotonic()) - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        self._looked = now
        trials_folder = self.bench.work / TRIALS
        for file in (*trials_folder.glob(f"*/{WAITING}"), *trials_folder.glob(f"*/*/{WAITING}")):
            name = file.relative_to(trials_folder).parts[0]
            log.warning("trial in %s waits for cores or GPUs that others hold, and asks again", name)
            file.unlink(missing_ok=True)

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Keep what a stopped trial has measured, say how it ended, delete what nobody needs."""
        folder = folder_of(self.bench.work, str(trial.trial_id))
        if folder is not None:
            note_stop(folder, self.bench.metric, (trial.last_result or {}).get("time_total_s"))
            # Before its work folder goes, in which the name of what it has reserved is.
            free_reservation(folder / PARTIAL)
        self._after(trial, trials, None)

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Say why a trial was given up that lost its process again and again."""
        self._after(trial, trials, str(trial.get_error() or "the trial's process was lost"))

    def _after(self, trial: RayTrial, trials: list[RayTrial], error: str | None) -> None:
        work, trial_id = self.bench.work, str(trial.trial_id)

        def running() -> list[Path]:
            others = [other for other in trials if not other.is_finished() and other != trial]
            return [folder for other in others if (folder := folder_of(work, str(other.trial_id))) is not None]

        settings = self.bench.base.tune
        tidy(work, settings.keep_best, [folder.name for folder in running()], settings.max_latency_ms)
        drop_mined(self.bench, running)
        known = {trial.trial_id: trial for trial in read_trials(self.bench, {trial_id: error} if error else {})}
        done = sum(told.status != "stopped" or not math.isnan(told.value) for told in known.values())
        best = max((told.score for told in known.values()), default=-math.inf)
        if trial_id in known:
            line = progress_line(known[trial_id], done, self.num_trials, self.bench.metric, best)
            log.info("%s", line)


def read_trials(bench: Bench, errors: Mapping[str, str]) -> list[Trial]:
    """Every trial that has started, in order; ``errors`` are of trials that Tune gave up, by id."""
    trials = [_read(bench.work, name, errors, number) for number, name in enumerate(started_trials(bench.work), 1)]
    # A trial that Tune forgot when it was killed has begun again under another id, in the same folder.
    known: dict[str, Trial] = {}
    for trial in trials:
        known.setdefault(trial.folder, trial)
    return list(known.values())


def _read(work: Path, trial_id: str, errors: Mapping[str, str], number: int = 0) -> Trial:
    folder = folder_of(work, trial_id)
    if folder is None:
        return Trial(trial_id, {}, status="failed", error=errors.get(trial_id, "it never started"))
    overrides = json.loads((folder / SETTINGS).read_text("utf-8"))
    told: dict[str, Any] = {"number": number, "folder": folder.name}
    found = read_ended(folder / OUTCOME)
    status: Status = "finished"
    if found is None and (error := _error(folder, trial_id, errors)) is not None:
        return Trial(trial_id, overrides, status="failed", error=error, **told)
    if found is None:
        found, status = read_ended(folder / STOPPED), "stopped"
    if found is None:
        return Trial(trial_id, overrides, status="stopped", **told)
    return Trial(
        trial_id, overrides, found.value, status, measures=found.measures, points=found.points, seconds=found.seconds,
        train_seconds=found.train_seconds, latency_ms=found.latency_ms, best_share=found.best_share, **told,
    )  # fmt: skip


def _error(folder: Path, trial_id: str, errors: Mapping[str, str]) -> str | None:
    if (folder / FAILED).is_file():
        return (folder / FAILED).read_text("utf-8")
    return errors.get(trial_id)
