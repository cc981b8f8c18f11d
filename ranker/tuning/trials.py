"""The trials of a sweep as a table, and which of them is best. Pure."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

# Characters of a failure's reason that are kept.
REASON = 2000


@dataclass(frozen=True)
class Trial:
    """One trial as it ended.

    Args:
        overrides: dotted path -> value, all that differs from the experiment. measures: of the dev queries.
        error: why it failed; None when it did not.
    """

    trial_id: str
    overrides: dict[str, Any]
    measures: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    error: str | None = None

    def value(self, metric: str) -> float:
        """The metric; minus infinity for a trial that failed or lost its way into NaN."""
        value = self.measures.get(metric, math.nan)
        return -math.inf if self.error is not None or math.isnan(value) else value


class SweepError(RuntimeError):
    """A sweep without a single trial that finished."""


def best_trial(trials: Sequence[Trial], metric: str) -> Trial:
    """The trial with the highest metric, the first of equal ones.

    Raises:
        SweepError: with the reasons, when no trial has a value.
    """
    best = max(trials, key=lambda trial: trial.value(metric), default=None)
    if best is None or best.value(metric) == -math.inf:
        lines = [f"  {trial.trial_id} {trial.overrides}: {_last_line(trial.error or 'no value')}" for trial in trials]
        raise SweepError("\n".join([f"none of {len(trials)} trials finished with a {metric}", *lines]))
    return best


def trials_table(trials: Sequence[Trial], metric: str) -> pa.Table:
    """One row a trial, the best first: trial_id, status, the metric, seconds, other measures, overrides, error.

    Overrides are columns named by their dotted paths; one whose values are not of one type holds JSON.
    """
    rows = sorted(trials, key=lambda trial: -trial.value(metric))
    measures = dict.fromkeys([metric, *(name for trial in rows for name in trial.measures)])
    paths = dict.fromkeys(path for trial in rows for path in trial.overrides)
    columns: dict[str, pa.Array] = {
        "trial_id": pa.array([trial.trial_id for trial in rows], pa.string()),
        "status": pa.array(["failed" if trial.error is not None else "finished" for trial in rows], pa.string()),
    }
    for name in measures:
        columns[name] = pa.array([trial.measures.get(name) for trial in rows], pa.float64())
    columns["seconds"] = pa.array([trial.seconds for trial in rows], pa.float64())
    for path in paths:
        columns[path] = _column([trial.overrides.get(path) for trial in rows])
    errors = [None if trial.error is None else trial.error[-REASON:] for trial in rows]
    return pa.table({**columns, "error": pa.array(errors, pa.string())})


def progress_line(trial: Trial, done: int, num_trials: int, metric: str, best: float) -> str:
    """``trial 2 of 8: ndcg@10 0.8123, best so far 0.8311; train.lora.r=8``."""
    settings = ", ".join(f"{path}={_short(value)}" for path, value in trial.overrides.items())
    if trial.error is not None:
        return f"trial {done} of {num_trials} failed: {_last_line(trial.error)}; {settings}"
    sofar = f", best so far {best:.4f}" if best > -math.inf else ""
    return f"trial {done} of {num_trials}: {metric} {trial.value(metric):.4f}{sofar}; {settings}"


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else json.dumps(value, default=str) for value in values], pa.string())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2] or text
