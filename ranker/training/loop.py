"""The DeepSpeed loop of one worker, without Ray: it needs a process group and knows not who made it.

Every worker walks through the same steps and calls the same collectives; a decision to stop is made from numbers
that all of them share, so that none is left waiting.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ranker.manifest import write_json
from ranker.training import checkpoint, measure, progress
from ranker.training.batches import Batch, GroupFile, collate, deal, step_rows, total_steps
from ranker.training.engine import (
    agree,
    choose_for_device,
    name_accelerator,
    scoring,
    start_engine,
    sum_over_workers,
)
from ranker.training.job import GROUP_FILE, OUTCOME, WEIGHTS, Job
from ranker.training.losses import LOSSES
from ranker.training.model import load_model
from ranker.training.progress import Window
from ranker.training.schedule import rate_factor
from ranker.training.scores import padding_values, score_batch


@dataclass(frozen=True)
class Place:
    """Where a worker stands.

    Args:
        rank, num_workers: among the workers. device: to compute on.
        newest: folder of the checkpoint to continue from; None for a fresh start.
        report: takes metrics and a checkpoint folder (this worker's part, deleted afterwards) and stores them.
    """

    rank: int
    num_workers: int
    device: torch.device
    newest: Path | None
    report: Callable[[dict[str, float], Path], None]


class Run:
    """One worker's part of one run.

    Raises:
        TrainingError: on a loss that is no number, or scores that are all alike; on all workers at once.
    """

    def __init__(self, job: Job, place: Place) -> None:
        self.job, self.train, self.place = job, job.train, place
        self.rank, self.world, self.device = place.rank, place.num_workers, place.device
        torch.set_num_threads(max(1, int(job.train.cpus_per_worker)))
        name_accelerator(self.device.type)
        self.groups = GroupFile(job.work / GROUP_FILE)
        self.total = total_steps(len(self.groups), self.train.batch_size, self.train.epochs, self.train.max_steps)
        arithmetic = agree(choose_for_device(self.train, self.device.type))
        attention = "eager" if self.device.type == "cpu" and arithmetic == "bf16" else "sdpa"
        model, self.tokenizer = load_model(self.train, job.seed, attention)
        self.pad = padding_values(self.tokenizer)
        self.engine = start_engine(model, self.train, arithmetic, self.device.type)
        self.peaks = [group["lr"] for group in self.engine.optimizer.param_groups]
        self.dev = measure.load_dev(job.dev, self.tokenizer, self.train.max_length) if job.dev else None
        self.progress = self._restore()
        reached = self.progress.step
        begin = f"resuming after step {reached} of" if reached else "starting"
        self._write(
            step=reached,
            message=f"{begin} {self.total} steps: {self.world} workers on {self.device.type} in {arithmetic}, "
            f"ZeRO-{self.train.deepspeed.stage}, {len(self.groups)} groups, loss {self.train.loss}",
        )

    def loop(self) -> None:
        """The steps that are left."""
        window, since, health = Window(), time.monotonic(), progress.Health()
        for step in range(self.progress.step, self.total):
            self._step(step, window)
            done = step + 1
            saves = self._due(done, self.train.checkpoint_every) or self._due(done, self.train.evaluate_every)
            if not saves and not self._due(done, self.train.log_every):
                continue
            window = Window(*sum_over_workers(window.as_array(), self.device))
            health.check(window, done)
            self._tell(window, time.monotonic() - since, done)
            if saves:
                self._save(measured=self._due(done, self.train.evaluate_every))
            window, since = Window(), time.monotonic()

    def finish(self) -> None:
        """The model folder, and the numbers that the manifest keeps."""
        weights = checkpoint.trained_weights(self.engine, keep=self.rank == 0)
        if self.rank == 0:
            checkpoint.write_model(weights, self.train, self.job.seed, self.job.work / WEIGHTS)
            write_json(self.job.work / OUTCOME, self.progress.outcome())

    def _due(self, done: int, every: int | None) -> bool:
        return done == self.total or (every is not None and done % every == 0)

    def _step(self, step: int, window: Window) -> None:
        """One optimiser step on this worker's share of its batch."""
        factor = rate_factor(step, self.total, self.train.warmup_ratio, self.train.schedule)
        for group, peak in zip(self.engine.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        # Dropout must be the same after a restart.
        torch.manual_seed((self.job.seed * 1_000_003 + step) * self.world + self.rank)
        rows = step_rows(step, self.train.batch_size, len(self.groups), self.job.seed)
        for piece in deal(rows, self.groups.sizes[rows], self.train.gradient_accumulation_steps, self.world):
            groups = [self.groups[row] for row in piece[self.rank]]
            self._learn(collate(groups, self.tokenizer, self.train.max_length, self.train.group_size), window)

    def _learn(self, batch: Batch, window: Window) -> None:
        one_pass = self.train.deepspeed.stage == 3
        scores, computed = score_batch(self.engine, batch, self.pad, self.device, one_pass)
        labels, mask = (torch.from_numpy(array).to(self.device) for array in (batch.labels, batch.mask))
        loss = LOSSES[self.train.loss](scores, labels, mask, **self.train.loss_options)
        self.engine.backward(loss)
        self.engine.step()
        window.add(float(loss.detach()), scores.detach().cpu().numpy(), batch, computed)

    def _tell(self, window: Window, seconds: float, done: int) -> None:
        steps = done - self.progress.step
        self.progress = replace(
            self.progress,
            step=done,
            seconds=self.progress.seconds + seconds,
            pairs=self.progress.pairs + int(window.pairs),
            loss=window.mean_loss,
        )
        self._write(
            step=done,
            total=self.total,
            learning_rate=max(group["lr"] for group in self.engine.optimizer.param_groups),
            grad_norm=float(self.engine.get_global_grad_norm() or 0.0),
            pairs_per_second=window.pairs / max(seconds, 1e-9),
            eta=seconds / steps * (self.total - done),
            **window.means(),
        )

    def _save(self, measured: bool) -> None:
        """Report a checkpoint, with the measures for whoever listens (a Tune trial)."""
        if measured and self.dev is not None:
            with scoring(self.engine):
                found = measure.measure(self.dev, self._score_rows, self._add, self.rank, self.world)
            self.progress = replace(self.progress, measures=found)
            retriever = measure.retriever_measures(self.dev)
            self._write(step=self.progress.step, total=self.total, dev=found, retriever=retriever)
        metrics = {"step": self.progress.step, "loss": self.progress.loss, **self.progress.measures}
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save_state(self.engine, Path(folder), self.progress)
            self.place.report(metrics, Path(folder))

    def _score_rows(self, columns: Mapping[str, Sequence[Sequence[int]]], rows: np.ndarray) -> np.ndarray:
        part = {name: [list(column[row]) for row in rows] for name, column in columns.items()}
        lengths = np.array([len(ids) for ids in part["input_ids"]])
        batch = Batch(part, lengths, np.zeros((len(rows), 1), np.float32), np.ones((len(rows), 1), bool))
        scores, _ = score_batch(self.engine, batch, self.pad, self.device, one_pass=True)
        return scores[:, 0].double().cpu().numpy()

    def _add(self, values: np.ndarray) -> np.ndarray:
        return sum_over_workers(values, self.device)

    def _restore(self) -> checkpoint.Progress:
        reached = checkpoint.Progress()
        if self.place.newest is not None:
            reached = checkpoint.load_state(self.engine, self.place.newest)
        if self.rank == 0:
            progress.truncate_log(self.job.work / progress.LOG, reached.step)
        return reached

    def _write(self, **record: Any) -> None:
        if self.rank == 0:
            progress.append_log(self.job.work / progress.LOG, record)
