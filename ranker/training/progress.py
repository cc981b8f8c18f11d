"""The run's log: one JSON line a window of steps, written by the first worker, read and told by the driver."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LOG = "training_log.jsonl"
# Scores of a group that differ by less than this are alike: bf16 keeps about three digits.
ALIKE = 1e-4
# Windows with alike scores before a run is stopped; a head that starts at zero gets time to move.
ALIKE_WINDOWS = 5


class TrainingError(RuntimeError):
    """A run that cannot go well; the message says what was seen and what to change."""


@dataclass
class Window:
    """Sums over the steps since the last line; those of all workers can be added.

    Args:
        loss: sum over forward passes. passes: their number. pairs, tokens, computed: pairs, their tokens, and the
            tokens with padding. spread: sum over passes of the mean range of the scores in a group.
    """

    loss: float = 0.0
    passes: float = 0.0
    pairs: float = 0.0
    tokens: float = 0.0
    computed: float = 0.0
    spread: float = 0.0

    def as_array(self) -> np.ndarray:
        return np.array([self.loss, self.passes, self.pairs, self.tokens, self.computed, self.spread])

    @property
    def mean_loss(self) -> float:
        return self.loss / max(1.0, self.passes)

    @property
    def mean_spread(self) -> float:
        return self.spread / max(1.0, self.passes)

    @property
    def padding(self) -> float:
        return 1.0 - self.tokens / max(1.0, self.computed)


def check_health(window: Window, step: int, alike_windows: int) -> int:
    """The number of windows in a row whose scores were all alike, this one included.

    Raises:
        TrainingError: on a loss that is no number, or scores that have been alike for too long.
    """
    if not math.isfinite(window.mean_loss):
        raise TrainingError(
            f"the loss is {window.mean_loss} at step {step}; lower train.learning_rate, raise train.warmup_ratio, "
            f"or compute in bf16 or fp32 (train.precision) where it was fp16"
        )
    alike = alike_windows + 1 if window.mean_spread < ALIKE else 0
    if alike >= ALIKE_WINDOWS:
        raise TrainingError(
            f"every document gets the same score (spread {window.mean_spread:.1e}, step {step}): the model has "
            f"collapsed or does not learn; lower train.learning_rate, raise train.warmup_ratio, and look whether "
            f"each group holds positives and negatives"
        )
    return alike


def truncate_log(path: Path, step: int) -> None:
    """Forget the lines after ``step``: a resumed run writes them again. A half-written last line goes too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("step", 0) <= step:
            kept.append(line + "\n")
    path.write_text("".join(kept), "utf-8")


def append_log(path: Path, record: dict[str, Any]) -> None:
    """Add one line; a reader sees it at once."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def describe(record: dict[str, Any]) -> str:
    """A log record as a person reads it."""
    if "message" in record:
        return str(record["message"])
    place = f"step {record['step']}/{record['total']}"
    if "dev" in record:
        shown = ", ".join(
            f"{name} {value:.4f} (retriever {record['retriever'][name]:.4f})" for name, value in record["dev"].items()
        )
        return f"{place}: dev {shown}"
    minutes, seconds = divmod(round(record["eta"]), 60)
    return (
        f"{place}: loss {record['loss']:.4f}, rate {record['learning_rate']:.2e}, gradient {record['grad_norm']:.2f}, "
        f"{record['pairs_per_second']:.1f} pairs/s, padding {record['padding']:.0%}, {minutes}:{seconds:02d} left"
    )


class LogFollower:
    """Tells each new line of a log once; a log that was cut behind it is followed from its new end."""

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self._path, self._tell = path, tell
        self._position = path.stat().st_size if path.is_file() else 0

    def poll(self) -> None:
        """Tell what was written since the last call."""
        if not self._path.is_file():
            return
        self._position = min(self._position, self._path.stat().st_size)
        with self._path.open("rb") as stream:
            stream.seek(self._position)
            fresh = stream.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.splitlines():
            self._tell(describe(json.loads(line)))
