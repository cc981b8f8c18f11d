"""What Ray Train runs in each worker: the loop, told where it stands and where its checkpoints go."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchTrainer, get_device
from ray.util import get_current_placement_group, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup, PlacementGroupID

from ranker.manifest import write_json, write_text
from ranker.training.job import Job
from ranker.training.loop import Place, Run
from ranker.training.progress import TrainingError

STOPPED, RESERVED = "stopped.json", "placement_group.txt"


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


def free_reservation(work: Path) -> bool:
    """Give back the cores of a run whose driver is gone, with workers that still use them; whether there were any.

    Ray keeps them as long as the job lives, and what it has against that needs its dashboard, and to be the only
    cluster of the machine.
    """
    file = work / RESERVED
    if not file.is_file():
        return False
    name = file.read_text("utf-8").strip()
    found = name in reservations()
    if found:
        free(name)
    file.unlink(missing_ok=True)
    return found


def reservations() -> set[str]:
    """Names of what this job holds; the job's own number stands at the end of each."""
    job = ray.get_runtime_context().get_job_id()
    table = placement_group_table()
    return {name for name, told in table.items() if name.endswith(job) and told["state"] != "REMOVED"}


def free(name: str) -> None:
    """Give back one of :func:`reservations`."""
    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


def _report(metrics: dict[str, float], folder: Path) -> None:
    ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


class Trainer(TorchTrainer):
    """Ray's, without the actor that looks out for a controller that dies; see :func:`free_reservation`.

    That actor never ends when it has found one, and finds none where two clusters run on one machine.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [each for each in callbacks if type(each).__name__ != "PlacementGroupCleanerCallback"]
