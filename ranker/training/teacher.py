"""A cross-encoder that reads pairs for the miner, on Ray actors; what is scored is kept and never scored twice."""

import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from numpy.typing import NDArray

from ranker.config import Experiment, RayConfig, ScoringConfig
from ranker.data.grouping import group_texts
from ranker.pretrained import named_anywhere
from ranker.schemas import Collection
from ranker.scoring.scorer import load_scorer
from ranker.session import connected, quiet_ray_data

log = logging.getLogger(__name__)

# Pairs that an interruption may cost each actor.
TASK_PAIRS = 1024
SECONDS_BETWEEN_LINES = 5.0
WHOLE = "logits.npy"

Logits = NDArray[np.float32]


class Task(NamedTuple):
    """Some whole groups of a file of EXAMPLES."""

    part: int
    start: int
    length: int
    num_pairs: int

    @property
    def file_name(self) -> str:
        """Where its logits are kept."""
        return f"logits-{self.part:05d}-{self.start:06d}.npy"


def score_labelled(labelled: pa.Table, train: Collection, folder: Path, config: Experiment) -> Logits:
    """The teacher's logit (rows,) of each row of LABELLED, whose documents the corpus must hold.

    Args:
        folder: of this one table; what is done lies here, and a call that was interrupted goes on.
    """
    if not labelled.num_rows:
        return np.zeros(0, dtype=np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / WHOLE).is_file():
        return np.asarray(np.load(folder / WHOLE), dtype=np.float32)
    parts = group_texts(labelled, train.queries, train.documents, folder / "texts", ray=config.ray)
    tasks = [task for number, part in enumerate(parts) for task in plan_tasks(number, part)]
    missing = [task for task in tasks if not (folder / task.file_name).is_file()]
    if len(missing) < len(tasks):
        log.info("teacher: %d of %d pieces are already scored", len(tasks) - len(missing), len(tasks))
    if missing:
        _score_missing(parts, missing, folder, config)
    found = np.concatenate([np.load(folder / task.file_name) for task in tasks])
    if len(found) != labelled.num_rows:
        raise RuntimeError(f"the teacher scored {len(found)} of {labelled.num_rows} pairs; run the stage data again")
    _save(folder / WHOLE, found)
    shutil.rmtree(folder / "texts")
    return found


def _save(file: Path, logits: Logits) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("wb") as stream:
        np.save(stream, logits)
    temporary.replace(file)


def plan_tasks(number: int, part: Path) -> list[Task]:
    """Groups of a file in tasks of about TASK_PAIRS pairs."""
    lengths = pq.read_table(part, columns=["labels"])["labels"].combine_chunks().value_lengths().to_pylist()
    tasks, start, pairs = [], 0, 0
    for group, length in enumerate(lengths, 1):
        pairs += length
        if pairs >= TASK_PAIRS or group == len(lengths):
            tasks.append(Task(number, start, group - start, pairs))
            start, pairs = group, 0
    return tasks


def _score_missing(parts: list[Path], missing: list[Task], folder: Path, config: Experiment) -> None:
    total = sum(task.num_pairs for task in missing)
    log.info("teacher %s: %d pairs to score", config.mine.teacher.model, total)
    by_place = {(task.part, task.start): task for task in missing}
    start = said = time.monotonic()
    done = 0
    for part, place, logits in _scored(parts, missing, config, config.ray):
        task = by_place[part, place]
        _save(folder / task.file_name, logits)
        done += task.num_pairs
        now = time.monotonic()
        if now - said > SECONDS_BETWEEN_LINES or done == total:
            said, rate = now, done / max(now - start, 1e-9)
            log.info("teacher: %d of %d pairs, %.0f a second, %.0f s left", done, total, rate, (total - done) / rate)


def _scored(
    parts: list[Path], tasks: list[Task], config: Experiment, cluster: RayConfig
) -> Iterator[tuple[int, int, Logits]]:
    """(part, start, logits) of each task, as actors finish them; a lost actor or node costs its task a second run."""
    teacher = config.mine.teacher
    rows = [{"file": str(parts[task.part]), **task._asdict()} for task in tasks]
    with connected(cluster):
        quiet_ray_data()
        stream = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            ScorePairs,
            fn_constructor_args=(named_anywhere(str(teacher.model)), teacher.scoring, teacher.cpus_per_worker),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(teacher.num_workers, len(rows))),
            num_cpus=teacher.cpus_per_worker,
            num_gpus=teacher.gpus_per_worker or None,
        )
        for row in stream.iter_rows():
            yield row["part"], row["start"], np.asarray(row["logits"], dtype=np.float32)


class ScorePairs:
    """A Ray Data actor: places of groups become their logits."""

    def __init__(self, model: str, scoring: ScoringConfig, cpus: float) -> None:
        import torch

        torch.set_num_threads(max(1, round(cpus)))
        self._scorer = load_scorer(model, scoring)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score the groups of some tasks."""
        logits = [self._score(task) for task in batch.to_pylist()]
        columns: list[Any] = [batch["part"], batch["start"], pa.array(logits, pa.list_(pa.float32()))]
        return pa.table(columns, names=["part", "start", "logits"])

    def _score(self, task: dict[str, Any]) -> Logits:
        groups = pq.read_table(task["file"], columns=["query", "documents"]).slice(task["start"], task["length"])
        pairs = [(group["query"], document) for group in groups.to_pylist() for document in group["documents"]]
        return self._scorer.score(pairs)
