"""The run's log: one JSON line a window of steps, written by the first worker, read and told by the driver."""

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ranker.manifest import write_text
from ranker.training.batches import Batch

LOG = "training_log.jsonl"
# Scores of a group are alike when they differ by less than this in logits, or by less than this share of what the run
# has seen. A new head starts with small differences, and those must not be taken for a collapse.
ALIKE, ALIKE_SHARE = 1e-6, 1e-3
# Windows in a row with alike scores before a run is stopped.
ALIKE_WINDOWS = 5
# Windows in a row whose loss is so many times that of the first one.
DIVERGED, DIVERGED_WINDOWS = 3.0, 3


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

    def add(self, loss: float, scores: np.ndarray, batch: Batch, computed: int) -> None:
        """Count one forward pass: its loss, its scores (G, D), its pairs, and the tokens computed with padding."""
        highest = np.where(batch.mask, scores, -np.inf).max(axis=1)
        lowest = np.where(batch.mask, scores, np.inf).min(axis=1)
        self.loss += loss
        self.passes += 1
        self.pairs += len(batch.lengths)
        self.tokens += int(batch.lengths.sum())
        self.computed += computed
        self.spread += float((highest - lowest).mean())

    def as_array(self) -> np.ndarray:
        """The sums in the order of the fields, to be added over workers."""
        return np.array([self.loss, self.passes, self.pairs, self.tokens, self.computed, self.spread])

    @property
    def mean_loss(self) -> float:
        """Loss of a forward pass."""
        return self.loss / max(1.0, self.passes)

    @property
    def mean_spread(self) -> float:
        """How far the best score of a group lies above its worst, in logits."""
        return self.spread / max(1.0, self.passes)

    def means(self) -> dict[str, float]:
        """``loss``, ``spread`` and ``padding`` (the share of computed tokens that were none)."""
        padding = 1.0 - self.tokens / max(1.0, self.computed)
        return {"loss": self.mean_loss, "spread": self.mean_spread, "padding": padding}


class Health:
    """Decides after each window whether the run goes on.

    Args:
        earlier: records of the log up to where a resumed run goes on, so that it is compared with its true start.
    """

    def __init__(self, earlier: Iterable[dict[str, Any]] = ()) -> None:
        windows = [record for record in earlier if "loss" in record]
        self._widest, self._alike = max((record["spread"] for record in windows), default=0.0), 0
        self._first, self._above = next((record["loss"] for record in windows), math.inf), 0

    def check(self, window: Window, step: int) -> None:
        """Take note of a window that ended with ``step``.

        Raises:
            TrainingError: on a loss that is no number or has been several times the first one, or scores that have
                been alike for ALIKE_WINDOWS windows.
        """
        if not math.isfinite(window.mean_loss):
            raise TrainingError(
                f"the loss is {window.mean_loss} at step {step}; lower train.learning_rate, raise "
                f"train.warmup_ratio, or compute in bf16 or fp32 (train.precision) where it was fp16"
            )
        self._check_rise(window.mean_loss, step)
        spread = window.mean_spread
        self._widest = max(self._widest, spread)
        self._alike = self._alike + 1 if spread < max(ALIKE, ALIKE_SHARE * self._widest) else 0
        if self._alike >= ALIKE_WINDOWS:
            raise TrainingError(
                f"every document gets the same score (they differ by {spread:.1e} at step {step}): the model has "
                f"collapsed or does not learn; lower train.learning_rate, raise train.warmup_ratio, and look whether "
                f"each group holds positives and negatives"
            )

    def _check_rise(self, loss: float, step: int) -> None:
        if math.isinf(self._first):
            self._first = loss
        self._above = self._above + 1 if loss > DIVERGED * max(self._first, ALIKE_SHARE) else 0
        if self._above >= DIVERGED_WINDOWS:
            raise TrainingError(
                f"the loss rises: {loss:.3g} at step {step}, {self._first:.3g} at the start; lower "
                f"train.learning_rate, raise train.warmup_ratio, or lower train.max_grad_norm"
            )


def truncate_log(path: Path, step: int) -> None:
    """Forget the lines after ``step``: a resumed run writes them again. A half-written last line goes too.

    Args:
        path: of the log, or of the order (`train.record_order`).
    """
    if not path.is_file():
        return
    write_text(path, "".join(f"{json.dumps(record)}\n" for record in read_log(path, step)))


def read_log(path: Path, step: int) -> list[dict[str, Any]]:
    """The records up to a step; none where there is no log."""
    text = path.read_text("utf-8") if path.is_file() else ""
    return [record for record in _records(text) if record["step"] <= step]


def append_log(path: Path, record: dict[str, Any]) -> None:
    """Add one line with the time (seconds since 1970); a reader sees it at once."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**record, "time": time.time()}) + "\n")


def describe(record: dict[str, Any]) -> str:
    """A log record as a person reads it."""
    if "message" in record:
        return str(record["message"])
    place = f"step {record['step']}/{record['total']}"
    if "dev" in record:
        shown = ", ".join(
            f"{name} {value:.4f} (retriever {record['retriever'][name]:.4f})" for name, value in record["dev"].items()
        )
        return f"{place}: dev {shown}{', the best so far' if record.get('best') else ''}"
    minutes, seconds = divmod(round(record["eta"]), 60)
    return (
        f"{place}: loss {record['loss']:.4f}, rate {record['learning_rate']:.2e}, gradient {record['grad_norm']:.2f}, "
        f"{record['pairs_per_second']:.1f} pairs/s, {record['tokens_per_second']:.0f} tokens/s, "
        f"padding {record['padding']:.0%}, {minutes}:{seconds:02d} left"
    )


class LogFollower:
    """Tells each new line of a log once, also when a resumed run has cut the log in between.

    What a log holds when the follower is made is old. New is what was written later than the newest line told.
    """

    def __init__(self, path: Path, tell: Callable[[dict[str, Any]], None]) -> None:
        self._path, self._tell = path, tell
        self._size = -1
        self._told = max((record["time"] for record in self._read()), default=0.0)

    def poll(self) -> None:
        """Tell what was written since the last call."""
        for record in self._read():
            if record["time"] > self._told:
                self._told = record["time"]
                self._tell(record)

    def _read(self) -> list[dict[str, Any]]:
        if not self._path.is_file() or self._path.stat().st_size == self._size:
            return []
        text = self._path.read_text("utf-8")
        self._size = len(text.encode())
        return list(_records(text))


@contextmanager
def repeatedly(call: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call it in a thread of its own while the block runs: at once, and so many seconds after each call."""
    over = threading.Event()

    def run() -> None:
        call()
        while not over.wait(seconds):
            call()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _records(text: str) -> Iterator[dict[str, Any]]:
    """The whole lines of a log; one that is still being written is left out."""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)
