"""What runs in the process of a trial: mine where its settings ask for it, train through the door, measure, report."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock
from ray.train import Checkpoint
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.tune.integration.ray_train import TuneReportCallback

from ranker.config import Experiment
from ranker.manifest import write_text
from ranker.tuning.bench import Bench, in_slot, work_of
from ranker.tuning.latency import measure_latency
from ranker.tuning.mined import LOCK, MINED, mine_once
from ranker.tuning.recipe import groups_folder, mines, trial_config
from ranker.tuning.records import (
    FAILED,
    LOG,
    MODEL,
    OUTCOME,
    Ended,
    ended_of,
    measured,
    read_ended,
    write_ended,
)

# What a scheduler reads of a report: the best value so far, and how far the run has come in units of `tune.grace`.
VALUE, TIME, LATENCY = "value", "rounds", "latency_ms"
# Of a trial that failed: below every measure, so that schedulers and searches leave it behind.
FAILED_VALUE = -1.0
# Under this key a trial's config holds its sample.
SAMPLE = "sample"
# A run reports its last step a little early, so that no scheduler ends it before its model is written.
ALMOST = 0.99
# Lost processes and nodes that a trial, or a training of the repeats, survives.
LOSSES = 3
# Losses of a process or a node: these pass, and Tune starts the trial again.
PASSING = (
    ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError,
    ray.exceptions.RaySystemError,
)  # fmt: skip


class Measurements(TuneReportCallback):
    """Hands the dev measurements of Ray Train's reports to Tune, and no other report.

    Args:
        metric: that decides. rounds: a whole run in the scheduler's units. log: the run's own, for a restarted run.
    """

    def __init__(self, metric: str, rounds: float, log: Path) -> None:
        super().__init__()
        self._metric, self._rounds = metric, rounds
        self._best = max((point.value for point, _ in measured(log, metric)), default=None)

    def after_report(
        self, run_context: TrainRunContext, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Report the best value so far."""
        told = metrics[0]
        values = [value for name, value in told.items() if name.rpartition("/")[2] == self._metric]
        if not told.get("measured") or not values:
            return
        value = sum(values) / len(values)
        self._best = value if self._best is None else max(value, self._best)
        share = min(ALMOST, told["step"] / max(1, told["total"]))
        report = {VALUE: self._best, TIME: share * self._rounds, "step": told["step"], "now": value}
        self._training_actor_item_queue.put(report)


def run_trial(bench: Bench, overrides: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """Train with ``overrides`` into ``folder/model``; what the trial reports, None where it failed.

    The reason of a failure is in ``error.txt``: it would be the same again, so Tune shall not try again.
    """
    # Trials with equal settings share a folder: whoever comes second waits, and takes what the first has found.
    with FileLock(folder / LOCK):
        found = read_ended(folder / OUTCOME)
        if found is None and (folder / FAILED).is_file():
            return None
        try:
            if found is None:
                found = _train(bench, overrides, folder)
                write_ended(folder / OUTCOME, found)
        except PASSING:
            raise
        except Exception as error:
            write_text(folder / FAILED, f"{type(error).__name__}: {error}")
            return None
    report = {VALUE: found.value, TIME: bench.rounds, "seconds": found.seconds}
    return report if found.latency_ms is None else {**report, LATENCY: found.latency_ms}


def _train(bench: Bench, overrides: Mapping[str, Any], folder: Path) -> Ended:
    from ranker.training.trainer import fit

    config = trial_config(bench.base, overrides, folder / MODEL, bench.work / MINED)
    if mines(overrides):
        mine_once(bench, config)

    def train() -> Ended:
        start = time.monotonic()
        done = fit(config, [Measurements(bench.metric, bench.rounds, work_of(folder / MODEL) / LOG)])
        seconds = time.monotonic() - start
        ended = ended_of(folder / MODEL / LOG, bench.metric, config.train.evaluate_every is not None)
        ended = replace(ended, seconds=round(seconds, 2), train_seconds=done.outcome.get("train_seconds"))
        return with_latency(ended, config, folder / MODEL) if bench.base.tune.latency else ended

    return in_slot(bench, folder / MODEL, train)


def with_latency(ended: Ended, config: Experiment, model: Path) -> Ended:
    """The same with the milliseconds of a query, on as many cores as a training worker has."""
    scoring = config.evaluate.scoring
    # Trials are compared, so they all run the same way, and no trial measures which way is best.
    engine = "torch" if scoring.engine == "auto" else scoring.engine
    scoring = scoring.model_copy(update={"max_length": config.train.max_length, "engine": engine})
    threads = max(1, round(config.train.cpus_per_worker))
    told = measure_latency(model, groups_folder(config), scoring, config.evaluate.depth[0], threads)
    return replace(ended, latency_ms=round(told, 3))
