"""Cores that Ray holds for a training whose driver is gone.

Ray keeps a placement group as long as the job lives, and a sweep is one job. What Ray Train has against that needs
Ray's dashboard and finds nothing where two clusters run on one machine: every trial that a scheduler stops would then
keep its cores, and the next one wait for ever.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray import ActorID
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]  # made when it loads
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup, PlacementGroupID

from ranker.training.job import RESERVED
from ranker.training.progress import repeatedly

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 1.0


def reservations() -> set[str]:
    """Names of what this job holds; the job's own number stands at the end of each."""
    job = ray.get_runtime_context().get_job_id()
    table = placement_group_table()
    return {name for name, told in table.items() if name.endswith(job) and told["state"] != "REMOVED"}


def orphans() -> set[str]:
    """Those of :func:`reservations` whose maker is dead: the controller that Ray Train runs for each training.

    A trial that is killed before its first worker has left word of what it holds can be found in no other way. Ray
    knows who made what, but its own public table leaves that out.
    """
    rows = [
        PlacementGroupTableData.FromString(row) for row in state._connect_and_get_accessor().get_placement_group_table()
    ]
    # What the driver itself reserves has no maker, and counts as if that were dead.
    made_by_driver = (b"", ActorID.nil().binary())
    left = {
        row.placement_group_id.hex()
        for row in rows
        if row.creator_actor_dead and row.creator_actor_id not in made_by_driver and not row.is_detached
    }
    return left & reservations() if left else left


@contextmanager
def orphans_given_back() -> Iterator[None]:
    """Give back :func:`orphans` while the block runs; Ray may learn late that a trial was killed.

    Without Ray nothing happens.
    """
    if not ray.is_initialized():
        yield
        return
    with repeatedly(_give_back_orphans, SECONDS_BETWEEN_LOOKS):
        yield


def _give_back_orphans() -> None:
    try:
        for name in orphans():
            log.info("giving back the cores of a training whose process is gone")
            free(name)
    except Exception as error:  # Ray's head may be away for a moment; the next look finds the same
        log.debug("reservations cannot be looked at", exc_info=error)


def free(name: str) -> None:
    """Give back one of :func:`reservations`, with the workers that still use it."""
    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))


def free_reservation(work: Path) -> bool:
    """Give back what a run in this work folder had; whether there was any."""
    file = work / RESERVED
    if not file.is_file():
        return False
    name = file.read_text("utf-8").strip()
    found = name in reservations()
    if found:
        free(name)
    file.unlink(missing_ok=True)
    return found
