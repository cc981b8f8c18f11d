"""The trials of a sweep as a table, which of them is best, and which nothing beats in both quality and speed. Pure."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from ranker.tuning.records import Point, standing

# Characters of a failure's reason that are kept.
REASON = 2000

Status = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """One trial as it ended.

    Args:
        number: from 1, in the order in which trials began. folder: name of its folder.
        overrides: dotted path -> value, all that differs from the experiment. value: the measure that decides; NaN
            without one. measures: all of that measurement. points: every measurement.
        status: stopped by the scheduler or the time budget, or failed with ``error``.
        seconds: wall time. train_seconds: of that in training steps. latency_ms: a query's.
    """

    trial_id: str
    overrides: Mapping[str, Any]
    value: float = math.nan
    status: Status = "finished"
    number: int = 0
    folder: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    seconds: float | None = None
    train_seconds: float | None = None
    latency_ms: float | None = None
    best_share: float = 1.0
    error: str | None = None

    @property
    def score(self) -> float:
        """The value; minus infinity for a trial without a model."""
        return -math.inf if self.status != "finished" or math.isnan(self.value) else self.value


class SweepError(RuntimeError):
    """A sweep without a single trial that finished."""


def best_trial(trials: Sequence[Trial], metric: str, max_latency_ms: float | None = None) -> Trial:
    """The trial with the highest value, the first of equal ones.

    Args:
        metric: what the value is called. max_latency_ms: only among trials no slower than this; where none is so fast,
            the fastest is the best.

    Raises:
        SweepError: with the reasons, when no trial has a value.
    """
    scored = [trial for trial in trials if trial.score > -math.inf]
    if not scored:
        lines = [f"  {trial.trial_id} {dict(trial.overrides)}: {_why(trial)}" for trial in trials]
        raise SweepError("\n".join([f"none of {len(trials)} trials finished with a {metric}", *lines]))
    return min(scored, key=lambda trial: standing(trial.score, trial.latency_ms, trial.number, max_latency_ms))


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other beats in quality without being slower, nor in speed without being worse."""
    front: list[Trial] = []
    known = [trial for trial in trials if trial.score > -math.inf and trial.latency_ms is not None]
    for trial in sorted(known, key=lambda trial: (_latency(trial), -trial.score)):
        if not front or trial.score > front[-1].score:
            front.append(trial)
    return front


def trials_table(trials: Sequence[Trial], metric: str) -> pa.Table:
    """One row a trial, the best first.

    trial_id, number, status, the metric, other measures, latency_ms, seconds, train_seconds, the overrides as columns
    named by their dotted paths (JSON where the values are not of one type), ``progress`` and ``intermediate`` (share of
    the steps and value of every measurement, lists), error.
    """
    rows = sorted(trials, key=lambda trial: (-trial.score, trial.number))
    measures = dict.fromkeys(name for trial in rows for name in trial.measures if name != metric)
    paths = dict.fromkeys(path for trial in rows for path in trial.overrides)
    columns: dict[str, pa.Array] = {
        "trial_id": pa.array([trial.trial_id for trial in rows], pa.string()),
        "number": pa.array([trial.number for trial in rows], pa.int32()),
        "status": pa.array([trial.status for trial in rows], pa.string()),
        metric: pa.array([None if math.isnan(trial.value) else trial.value for trial in rows], pa.float64()),
    }
    for name in measures:
        columns[name] = pa.array([trial.measures.get(name) for trial in rows], pa.float64())
    for name in ("latency_ms", "seconds", "train_seconds"):
        columns[name] = pa.array([getattr(trial, name) for trial in rows], pa.float64())
    for path in paths:
        columns[path] = _column([trial.overrides.get(path) for trial in rows])
    columns["progress"] = pa.array([[point.share for point in trial.points] for trial in rows], pa.list_(pa.float64()))
    columns["intermediate"] = pa.array(
        [[point.value for point in trial.points] for trial in rows], pa.list_(pa.float64())
    )
    errors = [None if trial.error is None else trial.error[-REASON:] for trial in rows]
    return pa.table({**columns, "error": pa.array(errors, pa.string())})


def progress_line(trial: Trial, done: int, num_trials: int, metric: str, best: float) -> str:
    """``trial 2 of 8: ndcg@10 0.8123, best so far 0.8311; train.lora.r=8``."""
    settings = ", ".join(f"{path}={short(value)}" for path, value in trial.overrides.items())
    if trial.status == "failed":
        return f"trial {done} of {num_trials} failed: {last_line(trial.error or 'no reason known')}; {settings}"
    sofar = f", best so far {best:.4f}" if best > -math.inf else ""
    stopped = " (stopped)" if trial.status == "stopped" else ""
    value = "not measured" if math.isnan(trial.value) else f"{metric} {trial.value:.4f}"
    return f"trial {done} of {num_trials}{stopped}: {value}{sofar}; {settings}"


def short(value: Any) -> str:
    """A setting as a person reads it."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(short(entry) for entry in value) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def last_line(text: str) -> str:
    """What a traceback ends with."""
    return text.strip().rpartition("\n")[2] or text


def _latency(trial: Trial) -> float:
    return math.inf if trial.latency_ms is None else trial.latency_ms


def _why(trial: Trial) -> str:
    return "stopped" if trial.status == "stopped" else last_line(trial.error or "no value")


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else json.dumps(value, default=str) for value in values], pa.string())
