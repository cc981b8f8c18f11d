"""What the trials of a sweep share, and the places in which they train."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from ranker.config import Experiment
from ranker.manifest import write_text
from ranker.training.progress import TrainingError
from ranker.tuning.records import WAITING
from ranker.tuning.reservations import free_reservation, orphans_given_back

log = logging.getLogger(__name__)

T = TypeVar("T")

SLOTS = "slots"
SECONDS_BETWEEN_TRIES = 0.5
# Before a training whose workers found no room asks again; Ray Train itself has waited for minutes then.
SECONDS_WITHOUT_ROOM = 20.0


@dataclass(frozen=True)
class Bench:
    """What all trials of a sweep share.

    Args:
        base: the experiment with absolute folders. work: the sweep's work folder. slots: trials that train at once.
    """

    base: Experiment
    work: Path
    slots: int

    @property
    def metric(self) -> str:
        """The dev measure that decides."""
        return self.base.tune.metric

    @property
    def rounds(self) -> float:
        """A whole run, in units of ``tune.grace``."""
        return 1.0 / self.base.tune.grace


@contextmanager
def slot(bench: Bench, model: Path) -> Iterator[None]:
    """Hold one of the places in which trials train.

    Tune starts all trials of a population at once, and a trial's workers are no part of what Tune reserves for it. A
    lock of the system ends with its process, however that ends; then whoever comes next gives back the cores that the
    one before has left reserved.

    Args:
        model: folder that will be trained into.
    """
    lock = _first_free(_places(bench))
    try:
        free_reservation(work_of(model))
        _give_back(lock)
        write_text(_holder(lock), str(work_of(model)))
        # A trial that was paused may be back before its own process has let go of the folder.
        with FileLock(model.with_name(f".{model.name}.lock")):
            pass
        with orphans_given_back():
            yield
    finally:
        lock.release()


@contextmanager
def all_slots(bench: Bench) -> Iterator[None]:
    """Hold every place, for work that takes all cores: a training beside it would wait for its own in vain.

    Never inside a :func:`slot`, and by one process at a time: two that hold some each would wait for ever.
    """
    with orphans_given_back(), ExitStack() as held:
        for lock in _places(bench):
            held.enter_context(lock.acquire(poll_interval=SECONDS_BETWEEN_TRIES))
            _give_back(lock)
        yield


def in_slot(bench: Bench, model: Path, train: Callable[[], T]) -> T:
    """What ``train`` returns, called in a :func:`slot`.

    Where Ray Train found no room for its workers, another program holds the cores: the slot is left, and after a pause
    the training asks again, for as long as it takes. The driver says so.
    """
    while True:
        try:
            with slot(bench, model):
                return train()
        except TrainingError as error:
            if not found_no_room(error):
                raise
            log.warning("%s: no room for the workers yet; asking again", model)
            write_text(model.with_name(WAITING), str(error))
        time.sleep(SECONDS_WITHOUT_ROOM)


def found_no_room(error: TrainingError) -> bool:
    """Whether a training came to nothing because its workers could not start for lack of free cores or GPUs."""
    failure = getattr(error.__cause__, "controller_failure", None)
    return isinstance(failure, WorkerGroupStartupTimeoutError)


def work_of(model: Path) -> Path:
    """Where the stage `train` works before its folder is whole."""
    return model.with_name(f".{model.name}.partial")


def _places(bench: Bench) -> list[FileLock]:
    (bench.work / SLOTS).mkdir(exist_ok=True)
    return [FileLock(bench.work / SLOTS / str(number)) for number in range(bench.slots)]


def _holder(lock: FileLock) -> Path:
    return Path(f"{lock.lock_file}.holder")


def _give_back(lock: FileLock) -> None:
    """Give back what the last holder of a place has left reserved."""
    if _holder(lock).is_file():
        free_reservation(Path(_holder(lock).read_text("utf-8")))


def _first_free(locks: list[FileLock]) -> FileLock:
    while True:
        for lock in locks:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            return lock
        time.sleep(SECONDS_BETWEEN_TRIES)
