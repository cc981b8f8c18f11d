"""Experiment tracking: the numbers of the log as curves in TensorBoard, MLflow or Weights & Biases.

The driver hands over what it reads of the log; the workers know nothing of it. Each tracker has a thread of its own,
so that a server that hangs holds up neither the training nor another tracker, and one that fails is dropped.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ranker.registry import UnknownNameError
from ranker.training.trackers import TRACKERS, Tracker

log = logging.getLogger(__name__)

Record = Mapping[str, Any]
NUMBERS = (
    "loss", "learning_rate", "grad_norm", "pairs_per_second", "tokens_per_second", "padding", "spread",
)  # fmt: skip
# How long the end of a training waits for trackers that have not sent everything.
SECONDS_TO_FINISH = 60.0
# Characters of a failure.
LONGEST_REASON = 300


class TrackerError(ValueError):
    """Trackers that cannot be used; the message names each with the remedy."""


def check_trackers(names: Sequence[str]) -> None:
    """Look whether each tracker is known and installed.

    Raises:
        TrackerError: with all names that are not, and what to do.
    """
    problems = [problem for name in dict.fromkeys(names) if (problem := _problem(name))]
    if problems:
        raise TrackerError("; ".join(problems))


def _problem(name: str) -> str | None:
    try:
        needed = TRACKERS[name]
    except UnknownNameError as error:
        return str(error)
    found = find_spec(needed.package)
    if found is None or found.origin is None:  # no origin: a folder of that name, such as wandb makes for its files
        return f"tracker {name!r} needs the package {needed.package}, which is not installed: {needed.remedy}"
    return None


@contextmanager
def trackers(
    names: Sequence[str], folder: Path, name: str, settings: Mapping[str, Any]
) -> Iterator[Callable[[Record], None]]:
    """Start these trackers, or continue their runs of ``folder``; what is yielded takes each record of the log.

    At the end it waits up to SECONDS_TO_FINISH for what has not been sent.

    Args:
        names: in TRACKERS. folder: for event files, local stores and the ids of runs; made if missing.
        name: of the run. settings: to show beside the curves; sections may be nested.

    Raises:
        TrackerError: see :func:`check_trackers`.
    """
    check_trackers(names)
    if names:
        folder.mkdir(parents=True, exist_ok=True)
    couriers = [
        Courier(each, partial(TRACKERS[each], folder.absolute(), name, settings)) for each in dict.fromkeys(names)
    ]

    def send(record: Record) -> None:
        for courier in couriers:
            courier.send(record)

    failed = True
    try:
        yield send
        failed = False
    finally:
        for courier in couriers:
            courier.finish(failed)
        end = time.monotonic() + SECONDS_TO_FINISH
        for courier in couriers:
            courier.wait(end - time.monotonic())


class Courier:
    """Brings records to one tracker on a thread of its own; the first failure is told and ends it."""

    def __init__(self, name: str, start: Callable[[], Tracker]) -> None:
        self._name, self._start = name, start
        self._inbox: SimpleQueue[Record | bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def send(self, record: Record) -> None:
        """Take a record and return at once."""
        self._inbox.put(record)

    def finish(self, failed: bool) -> None:
        """Close the tracker after the last record."""
        self._inbox.put(failed)

    def wait(self, seconds: float) -> None:
        """Wait until it is closed, but not longer."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            log.warning("%s has not taken everything in time; the rest of its curves may be missing", self._name)

    def _work(self) -> None:
        try:
            tracker = self._start()
            while not isinstance(record := self._inbox.get(), bool):
                deliver(record, tracker)
            tracker.close(failed=record)
        except Exception as error:  # whatever a service comes up with, the training is worth more
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:LONGEST_REASON]
            log.warning("tracking with %s ended, the training goes on: %s", self._name, reason)
            log.debug("traceback", exc_info=error)


def deliver(record: Record, tracker: Tracker) -> None:
    """Give one record of the log to a tracker."""
    if "message" in record:
        tracker.say(record["step"], str(record["message"]))
    if found := numbers(record):
        tracker.plot(record["step"], found, record.get("time") or time.time())


def numbers(record: Record) -> dict[str, float]:
    """The curves that a record adds to: NUMBERS, and measures such as ``dev/ndcg@10`` and ``retriever/ndcg@10``."""
    found = {name: float(record[name]) for name in NUMBERS if name in record}
    for group in ("dev", "retriever"):
        found |= {f"{group}/{measure}": float(value) for measure, value in record.get(group, {}).items()}
    return found
