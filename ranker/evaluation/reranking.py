"""Rerank a run with Ray Data: actors that hold the scoring engine write scores task by task, never twice.

While the engine computes one task, the next is read and tokenised in another thread.
"""

import copy
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ranker.config import ScoringConfig
from ranker.evaluation.tasks import Tasks, missing_tasks, open_tasks, read_scores, score_task
from ranker.manifest import write_json

log = logging.getLogger(__name__)

# Tasks that an actor takes at once: the end of one hides behind the start of the next.
TASKS_AT_ONCE = 8
# Seconds between progress lines.
PROGRESS_EVERY = 3.0
SPEED = "speed.json"
LATENCIES = "latencies.json"
# No more of a depth's single queries are scored once they took so many seconds; three are.
LATENCY_SECONDS = 20.0


@dataclass(frozen=True)
class Scored:
    """Scores of all pairs of a reranking and what they took.

    Args:
        scores: float64, one a pair. pairs_per_second: of all actors together. num_workers: actors.
        busy: share of the actors' time, from their first task to their last, in which the engine computed.
        latencies: depth -> milliseconds of single queries, scored one after another by one actor.
    """

    scores: NDArray[np.float64]
    pairs_per_second: float
    num_workers: int
    busy: float
    latencies: dict[int, tuple[float, ...]]


class TimedEngine:
    """An engine that computes as many batches at a time as it has lanes, whoever asks, and counts the seconds.

    A second in which half of the lanes compute counts half.
    """

    def __init__(self, engine: Any) -> None:
        self._engine, self._lock = engine, threading.Lock()
        self._free = threading.Semaphore(engine.lanes.lanes)
        self.name, self.precision, self.device = engine.name, engine.precision, engine.device
        self.lanes, self.pad_to_multiple_of = engine.lanes, engine.pad_to_multiple_of
        self.seconds = 0.0

    def logits(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        """float32 (rows,) of int64 (rows, tokens) columns."""
        with self._free:
            start = time.perf_counter()
            found: np.ndarray = self._engine.logits(batch)
            took = time.perf_counter() - start
        with self._lock:
            self.seconds += took / self.lanes.lanes
        return found


class ScoreTasks:
    """A Ray Data actor: numbers of tasks in, their scores in ``scores``, what it took out."""

    def __init__(
        self,
        tasks: Path,
        scores: Path,
        model: str,
        scoring: ScoringConfig,
        num_threads: int,
        device: str | None = None,
    ) -> None:
        import torch

        from ranker.scoring.scorer import load_scorer

        torch.set_num_threads(num_threads)
        self._tasks, self._scores = open_tasks(tasks), scores
        self._scorer = load_scorer(model, scoring, device)
        self._scorer.engine = self._engine = TimedEngine(self._scorer.engine)
        # A tokenizer is told at each call how to cut, so that of two threads one would cut as the other was told.
        twin = copy.copy(self._scorer)
        twin.tokenizer = copy.deepcopy(self._scorer.tokenizer)
        self._free: SimpleQueue[Any] = SimpleQueue()
        for scorer in (self._scorer, twin):
            self._free.put(scorer)
        self._name = f"{socket.gethostname()}-{os.getpid()}"

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score these tasks, two at a time: one computes while the other is tokenised."""
        started, busy = time.time(), self._engine.seconds
        numbers = batch["task"].to_pylist()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._score, numbers))
        pairs = sum(self._tasks.edges[number + 1] - self._tasks.edges[number] for number in numbers)
        took = [[self._name], [pairs], [self._engine.seconds - busy], [started], [time.time()]]
        return pa.table(took, names=["actor", "pairs", "busy", "started", "ended"])

    def _score(self, number: int) -> None:
        scorer = self._free.get()
        try:
            score_task(scorer, self._tasks, number, self._scores)
        finally:
            self._free.put(scorer)

    def latencies(self, queries: Sequence[tuple[int, int]], depths: Sequence[int]) -> dict[int, tuple[float, ...]]:
        """Depth -> milliseconds of single queries, given by the first and last row of their pairs."""
        found = {}
        for depth in depths:
            times: list[float] = []
            for low, high in queries:
                pairs = self._tasks.pairs(low, min(high, low + depth))
                if not times:
                    self._scorer.score(pairs[:32])  # the first of a size is slower
                start = time.perf_counter()
                self._scorer.score(pairs)
                times.append(1000 * (time.perf_counter() - start))
                if sum(times) > 1000 * LATENCY_SECONDS and len(times) >= 3:
                    break
            found[depth] = tuple(times)
        return found


def score_distributed(
    model: str,
    tasks: Tasks,
    folder: Path,
    *,
    scoring: ScoringConfig,
    num_workers: int = 2,
    gpus_per_worker: float = 0.0,
    depths: Sequence[int] = (),
    latency_queries: int = 0,
    device: str | None = None,
    node: str | None = None,
) -> Scored:
    """Scores of every pair by ``model`` on the connected Ray cluster; what lies in ``folder`` is not scored again.

    Args:
        tasks: on a disk that every node sees, as ``folder``; or that ``node``, an id of Ray's, sees, where all is done.
        device: as torch names it, in the actors. None: the first GPU of theirs, else the CPU.
        depths, latency_queries: so many single queries are timed at each of these depths.

    Raises:
        ValueError: where no node has a whole core.
    """
    import ray

    folder.mkdir(parents=True, exist_ok=True)
    if not tasks.num_pairs:
        return Scored(np.zeros(0), 0.0, 0, 0.0, {})
    missing = missing_tasks(tasks, folder)
    alive = [each for each in ray.nodes() if each["Alive"] and node in (None, each["NodeID"])]
    workers, cores = share_cores(num_workers, [each["Resources"].get("CPU", 0.0) for each in alive])
    workers = max(1, min(workers, len(missing)))
    arguments = (tasks.folder, folder, model, scoring, cores, device)
    options: dict[str, Any] = {"num_cpus": cores, "num_gpus": gpus_per_worker, **_placed(node)}
    if missing:
        log.info("reranking with %d actors of %d cores; %d tasks to do", workers, cores, len(missing))
        _run(arguments, missing, tasks, workers, options)
    if depths and latency_queries and not (folder / LATENCIES).is_file():
        remote: Any = ray.remote(max_restarts=2, max_task_retries=2, **options)(ScoreTasks)
        actor = remote.remote(*arguments)
        try:
            asked = sample_of(query_rows(tasks), latency_queries)
            write_json(folder / LATENCIES, ray.get(actor.latencies.remote(asked, list(depths))))
        finally:
            ray.kill(actor)
    return _gathered(tasks, folder)


def _placed(node: str | None) -> dict[str, Any]:
    if node is None:
        return {}
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def _run(
    arguments: tuple[Any, ...], missing: Sequence[int], tasks: Tasks, workers: int, options: dict[str, Any]
) -> None:
    import ray.data

    from ranker.session import quiet_ray_data

    quiet_ray_data()
    at_once = max(1, min(TASKS_AT_ONCE, len(missing) // (4 * workers)))
    numbers = pa.table({"task": pa.array(missing, pa.int32())})
    blocks = [numbers.slice(start, at_once) for start in range(0, len(missing), at_once)]
    stream = ray.data.from_arrow(blocks).map_batches(
        ScoreTasks,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        **{**options, "num_gpus": options["num_gpus"] or None},
    )
    folder: Path = arguments[1]
    total = sum(tasks.edges[number + 1] - tasks.edges[number] for number in missing)
    start = said = time.monotonic()
    scored = 0
    for batch in stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        took = pa.table(batch).to_pylist()
        _note(folder, took, workers)
        scored += sum(row["pairs"] for row in took)
        now = time.monotonic()
        if now - said >= PROGRESS_EVERY or scored == total:
            said = now
            log.info("%s", progress_line(scored, total, now - start))


def _note(folder: Path, took: Sequence[dict[str, Any]], workers: int) -> None:
    """Add to the speed file: per actor its pairs, engine seconds, and first and last moment."""
    file = folder / SPEED
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {"actors": {}}
    for row in took:
        actor = known["actors"].setdefault(
            row["actor"], {"pairs": 0, "busy": 0.0, "started": row["started"], "ended": row["ended"]}
        )
        actor["pairs"] += row["pairs"]
        actor["busy"] += row["busy"]
        actor["started"], actor["ended"] = min(actor["started"], row["started"]), max(actor["ended"], row["ended"])
    write_json(file, {"workers": workers, **known})


def _gathered(tasks: Tasks, folder: Path) -> Scored:
    speed = folder / SPEED
    known = json.loads(speed.read_text("utf-8")) if speed.is_file() else {"actors": {}}
    actors = list(known["actors"].values())
    span = sum(actor["ended"] - actor["started"] for actor in actors)
    busy, pairs = sum(actor["busy"] for actor in actors), sum(actor["pairs"] for actor in actors)
    workers = int(known.get("workers", 0))
    timed = folder / LATENCIES
    latencies = json.loads(timed.read_text("utf-8")) if timed.is_file() else {}
    return Scored(
        read_scores(tasks, folder),
        pairs / span * workers if span else 0.0,
        workers,
        busy / span if span else 0.0,
        {int(depth): tuple(times) for depth, times in latencies.items()},
    )


def query_rows(tasks: Tasks) -> list[tuple[int, int]]:
    """(first row, last row + 1) of each query's pairs."""
    rows = pa.ipc.open_file(pa.memory_map(str(tasks.folder / "pairs.arrow"))).read_all()
    queries = rows["query"].to_numpy()
    starts = np.flatnonzero(np.append(len(queries) > 0, queries[1:] != queries[:-1]))
    return list(zip(starts.tolist(), np.append(starts[1:], len(queries)).tolist(), strict=True))


def sample_of(queries: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """``count`` queries spread over all of them."""
    places = np.unique(np.linspace(0, len(queries) - 1, min(count, len(queries))).round().astype(int))
    return [queries[place] for place in places.tolist()]


def share_cores(num_workers: int, node_cores: Sequence[float]) -> tuple[int, int]:
    """(actors, whole cores an actor): at most ``num_workers`` actors that all fit on the nodes at once.

    Raises:
        ValueError: when no node has a whole core.
    """
    whole = [int(cores) for cores in node_cores]
    workers = min(num_workers, sum(whole))
    if workers < 1:
        raise ValueError(f"no node of the cluster has a whole core for a scoring actor; nodes: {list(node_cores)}")
    cores = sum(whole) // workers
    while sum(node // cores for node in whole) < workers:
        cores -= 1
    return workers, cores


def progress_line(scored: int, num_pairs: int, seconds: float) -> str:
    """``reranked 512 of 3,000 pairs, 128 pairs/s, 0:19 left``."""
    rate = scored / max(seconds, 1e-9)
    minutes, rest = divmod(round((num_pairs - scored) / max(rate, 1e-9)), 60)
    return f"reranked {scored:,} of {num_pairs:,} pairs, {rate:.0f} pairs/s, {minutes}:{rest:02d} left"
