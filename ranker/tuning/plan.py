"""How many trials run at once: as many as the cluster holds whole, so that none waits for another's workers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ranker.config import TrainConfig

# Cores of the process that drives a trial, which only waits; its training workers come on top. They must not be so
# many together that a worker does not fit beside them: hence so little.
DRIVER_CPUS = 0.001
# A worker may give up this share of its cores for the drivers: two workers then fit on two cores.
GIVEN_UP = 0.1
_ROUNDING = 1e-9


class ResourceError(ValueError):
    """A trial that the cluster can never hold."""


@dataclass(frozen=True)
class Plan:
    """What the trials get.

    Args:
        concurrent: trials at once. cpus_per_worker: cores that a training worker asks Ray for.
    """

    concurrent: int
    cpus_per_worker: float


def plan_trials(
    train: TrainConfig,
    nodes: Sequence[Mapping[str, float]],
    num_trials: int,
    max_concurrent: int | None = None,
    *,
    drivers: int | None = None,
) -> Plan:
    """The plan for nodes with these resources (``{"CPU": 8.0, "GPU": 1.0}`` each).

    A trial is a driver and ``train.num_workers`` workers, each on one node. Trials that start without all their
    workers would wait for each other for ever, so only whole ones are counted.

    Args:
        drivers: drivers that exist at once, also those of paused trials. None: one a trial that runs.

    Raises:
        ResourceError: with the arithmetic, when not even one trial fits.
    """
    limit = min(num_trials, max_concurrent or num_trials)
    whole = [count for count in range(1, limit + 1) if _fits(train, train.cpus_per_worker, nodes, count, drivers)]
    if whole:
        return Plan(max(whole), train.cpus_per_worker)
    for percent in range(1, round(100 * GIVEN_UP) + 1):
        cores = train.cpus_per_worker * (100 - percent) / 100
        if _fits(train, cores, nodes, 1, drivers):
            return Plan(1, cores)
    raise ResourceError(_arithmetic(train, nodes))


def _fits(
    train: TrainConfig, cores: float, nodes: Sequence[Mapping[str, float]], trials: int, drivers: int | None
) -> bool:
    workers, gpus, places = train.most_workers, train.gpus_per_worker, list[int]()
    for node in nodes:
        # All drivers may lie on this node: a worker more is promised nowhere.
        free = node.get("CPU", 0.0) - max(trials, drivers or 0) * DRIVER_CPUS
        held = math.floor(max(0.0, free) / cores + _ROUNDING)
        places.append(min(held, _on_gpus(node.get("GPU", 0.0), gpus)) if gpus else held)
    if train.placement == "STRICT_PACK":
        return sum(held // workers for held in places) >= trials
    if train.placement == "STRICT_SPREAD":
        return _spread(places, workers, trials)
    return sum(places) >= trials * workers


def _on_gpus(gpus: float, share: float) -> int:
    """Workers that the GPUs of a node hold; Ray never gives a worker parts of two GPUs."""
    if share >= 1:
        return math.floor(gpus / share + _ROUNDING)
    return math.floor(gpus + _ROUNDING) * math.floor(1 / share + _ROUNDING)


def _spread(places: list[int], workers: int, trials: int) -> bool:
    """Whether every trial finds a node of its own for each of its workers, also when the scarcest go first."""
    left = sorted(places)
    for _ in range(trials):
        free = [number for number, held in enumerate(left) if held > 0]
        if len(free) < workers:
            return False
        for number in free[:workers]:
            left[number] -= 1
        left.sort()
    return True


def taken_by_others(
    train: TrainConfig, plan: Plan, total: Mapping[str, float], free: Mapping[str, float]
) -> str | None:
    """A sentence where other programs hold so much of the cluster that not all trials of the plan start at once.

    Args:
        total, free: of the whole cluster, by name.
    """
    workers = plan.concurrent * train.most_workers
    asked = {"CPU": workers * plan.cpus_per_worker, "GPU": workers * train.gpus_per_worker}
    short = {name: need for name, need in asked.items() if need > free.get(name, 0.0) + _ROUNDING}
    if not short:
        return None
    told = ", ".join(
        f"{need:g} {name} of which {free.get(name, 0.0):g} of {total.get(name, 0.0):g} are free"
        for name, need in short.items()
    )
    return (
        f"{plan.concurrent} trials at once need {told}; other programs (a service, another job) hold the rest, so "
        "that trials will wait for it. Stop those, or lower tune.max_concurrent"
    )


def _arithmetic(train: TrainConfig, nodes: Sequence[Mapping[str, float]]) -> str:
    workers, cores, gpus = train.most_workers, train.cpus_per_worker, train.gpus_per_worker
    total = workers * cores + DRIVER_CPUS
    parts = f"{workers} workers x {cores:g} CPU + {DRIVER_CPUS:g} for its driver = {total:g} CPU"
    if gpus:
        parts += f", {workers} x {gpus:g} = {workers * gpus:g} GPU"
    have = "; ".join(f"{node.get('CPU', 0.0):g} CPU, {node.get('GPU', 0.0):g} GPU" for node in nodes) or "none"
    where = {"STRICT_PACK": "all on one node", "STRICT_SPREAD": "no two on one node"}.get(train.placement)
    placed = f"each worker on one node{f' and {where} (train.placement {train.placement})' if where else ''}"
    return (
        f"a trial needs {parts}, {placed}; the nodes have {have}: it would wait for ever. "
        "Lower train.num_workers or train.cpus_per_worker, or join a larger cluster"
    )
