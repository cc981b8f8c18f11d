"""What Ray Train runs in each worker: the loop, told where it stands and where its checkpoints go."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer, get_device
from ray.util import get_current_placement_group

from ranker.manifest import write_json, write_text
from ranker.training.job import RESERVED, Job
from ranker.training.loop import Place, Run
from ranker.training.progress import TrainingError

STOPPED = "stopped.json"


def train_worker(handed: dict[str, Job]) -> None:
    """Train ``handed["job"]`` from the newest checkpoint to its end.

    A TrainingError would be the same on every restart, so it is left in ``stopped.json`` for the driver instead.
    """
    job = handed["job"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    if rank == 0:
        _note_reservation(job.work)
    with _newest() as newest:
        place = Place(rank, context.get_world_size(), get_device(), newest, _report)
        run = Run(job, place)
    try:
        run.loop()
        run.finish()
    except TrainingError as error:
        if rank == 0:
            write_json(job.work / STOPPED, {"message": str(error)})


@contextlib.contextmanager
def _newest() -> Iterator[Path | None]:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield Path(folder)


def _note_reservation(work: Path) -> None:
    """Leave word of the cores that Ray holds for this run."""
    reserved = get_current_placement_group()
    if reserved is not None:
        write_text(work / RESERVED, reserved.id.hex())


def _report(metrics: dict[str, float], folder: Path) -> None:
    ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


# The first starts an actor that looks out for a controller that dies; see ``ranker.tuning.reservations``. That actor
# never ends when it has found one, and finds none where two clusters run on one machine. The second starts one, with
# Ray Data in it, that hands out datasets, and there are none.
NOT_NEEDED = ("PlacementGroupCleanerCallback", "DatasetsCallback")


class Trainer(TorchTrainer):
    """Ray's, without two actors beside each run."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]  # the stubs are those of Train v1
        return [each for each in callbacks if type(each).__name__ not in NOT_NEEDED]
