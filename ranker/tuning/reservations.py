"""Cores that Ray holds for a training whose driver is gone.

Ray keeps a placement group as long as the job lives, and a sweep is one job. What Ray Train has against that needs
Ray's dashboard and finds nothing where two clusters run on one machine: every trial that a scheduler stops would then
keep its cores, and the next one wait for ever.
"""

from pathlib import Path

import ray
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup, PlacementGroupID

from ranker.training.job import RESERVED


def reservations() -> set[str]:
    """Names of what this job holds; the job's own number stands at the end of each."""
    job = ray.get_runtime_context().get_job_id()
    table = placement_group_table()
    return {name for name, told in table.items() if name.endswith(job) and told["state"] != "REMOVED"}


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
