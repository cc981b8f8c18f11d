"""What each Ray Train worker runs: the DeepSpeed loop, its checkpoints and its report.

Every worker walks through the same steps and calls the same collectives; a decision to stop is made from numbers
that all of them share, so that none is left waiting.
"""

import logging
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
import torch.distributed
from ray.train.torch import get_device

from ranker.config import TrainConfig
from ranker.machine import cpu_has_bf16, instruction_sets
from ranker.manifest import write_json
from ranker.training import checkpoint, measure, progress
from ranker.training.batches import Batch, GroupFile, collate, deal, step_rows, total_steps
from ranker.training.losses import LOSSES
from ranker.training.model import head_modules, load_model, parameter_groups
from ranker.training.progress import TrainingError, Window
from ranker.training.schedule import rate_factor
from ranker.training.scores import padding_values, score_batch
from ranker.training.zero import Arithmetic, choose_precision, deepspeed_config

log = logging.getLogger(__name__)

GROUP_FILE, WEIGHTS, OUTCOME, STOPPED = "groups.arrow", "weights", "outcome.json", "stopped.json"


@dataclass(frozen=True)
class Job:
    """What the driver hands to each worker.

    Args:
        train: the section. seed: the experiment's. work: the stage's work folder, seen by all workers.
        dev: folder of the dev tables; None where there are none.
    """

    train: TrainConfig
    seed: int
    work: Path
    dev: Path | None


def train_worker(job: Job) -> None:
    """Train from the newest checkpoint to the end and leave ``weights/`` and ``outcome.json`` in the work folder.

    A TrainingError would be the same on every restart, so it is left in ``stopped.json`` for the driver instead.
    """
    torch.set_num_threads(max(1, int(job.train.cpus_per_worker)))
    try:
        _Run(job).run()
    except TrainingError as error:
        if ray.train.get_context().get_world_rank() == 0:
            write_json(job.work / STOPPED, {"message": str(error)})


class _Run:
    """One worker's part of one run."""

    def __init__(self, job: Job) -> None:
        self.job, self.train = job, job.train
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.device = get_device()
        self.groups = GroupFile(job.work / GROUP_FILE)
        self.total = total_steps(len(self.groups), self.train.batch_size, self.train.epochs, self.train.max_steps)
        self.arithmetic = self._agree_on_precision()
        attention = "eager" if self.device.type == "cpu" and self.arithmetic == "bf16" else "sdpa"
        self.model, self.tokenizer = load_model(self.train, job.seed, attention)
        self.pad = padding_values(self.tokenizer)
        self.engine = self._initialise()
        self.peaks = [group["lr"] for group in self.engine.optimizer.param_groups]
        self.one_pass = self.train.deepspeed.stage == 3
        self.progress = self._restore()
        self.dev = measure.load_dev(job.dev, self.tokenizer, self.train.max_length) if job.dev else None

    def run(self) -> None:
        window, since, alike = Window(), time.monotonic(), 0
        for step in range(self.progress.step, self.total):
            self._step(step, window)
            done = step + 1
            saving = self._saves(done)
            if saving or done % self.train.log_every == 0:
                window, seconds = self._over_workers(window), time.monotonic() - since
                alike = progress.check_health(window, done, alike)
                self._log(window, seconds, done)
                if saving:
                    self._save(self._measures(done))
                window, since = Window(), time.monotonic()
        self._finish()

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
            batch = collate(groups, self.tokenizer, self.train.max_length, self.train.group_size)
            self._learn(batch, window)

    def _learn(self, batch: Batch, window: Window) -> None:
        scores, computed = score_batch(self.engine, batch, self.pad, self.device, self.one_pass)
        labels, mask = (torch.from_numpy(array).to(self.device) for array in (batch.labels, batch.mask))
        loss = LOSSES[self.train.loss](scores, labels, mask, **self.train.loss_options)
        self.engine.backward(loss)
        self.engine.step()
        flat = scores.detach()
        spread = flat.masked_fill(~mask, -torch.inf).amax(1) - flat.masked_fill(~mask, torch.inf).amin(1)
        window.loss += float(loss.detach())
        window.spread += float(spread.mean())
        window.passes += 1
        window.pairs += len(batch.lengths)
        window.tokens += int(batch.lengths.sum())
        window.computed += computed

    def _saves(self, done: int) -> bool:
        every = (self.train.checkpoint_every, self.train.evaluate_every)
        return done == self.total or any(period and done % period == 0 for period in every)

    def _log(self, window: Window, seconds: float, done: int) -> None:
        steps = done - self.progress.step
        self.progress = replace(
            self.progress,
            step=done,
            seconds=self.progress.seconds + seconds,
            pairs=self.progress.pairs + int(window.pairs),
            loss=window.mean_loss,
        )
        norm = self.engine.get_global_grad_norm()
        self._write(
            step=done,
            total=self.total,
            loss=window.mean_loss,
            learning_rate=max(group["lr"] for group in self.engine.optimizer.param_groups),
            grad_norm=float("nan") if norm is None else float(norm),
            pairs_per_second=window.pairs / max(seconds, 1e-9),
            padding=window.padding,
            spread=window.mean_spread,
            eta=seconds / steps * (self.total - done),
        )

    def _measures(self, done: int) -> dict[str, float]:
        """Dev measures where they are due, else nothing."""
        every = self.train.evaluate_every
        if self.dev is None or not (done == self.total or (every and done % every == 0)):
            return {}
        self.engine.eval()
        with torch.no_grad():
            measures = measure.measure(self.dev, self._dev_scores, self._add, self.rank, self.world)
        self.engine.train()
        retriever = measure.retriever_measures(self.dev)
        self._write(step=done, total=self.total, dev=measures, retriever=retriever)
        return measures

    def _dev_scores(self, columns: Any, rows: np.ndarray) -> np.ndarray:
        part = {name: [column[row] for row in rows] for name, column in columns.items()}
        lengths = np.array([len(ids) for ids in part["input_ids"]])
        batch = Batch(part, lengths, np.zeros((len(rows), 1), np.float32), np.ones((len(rows), 1), bool))
        scores, _ = score_batch(self.engine, batch, self.pad, self.device, one_pass=True)
        return scores[:, 0].double().cpu().numpy()

    def _save(self, measures: dict[str, float]) -> None:
        """Report a checkpoint, with the measures for whoever listens (a Tune trial)."""
        metrics = {"step": self.progress.step, "loss": self.progress.loss, **measures}
        with tempfile.TemporaryDirectory(dir=self.job.work) as folder:
            checkpoint.save_state(self.engine, Path(folder), self.progress, self.train.lora.enabled)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _restore(self) -> checkpoint.Progress:
        newest = ray.train.get_checkpoint()
        reached = checkpoint.Progress()
        if newest is not None:
            with newest.as_directory() as folder:
                reached = checkpoint.load_state(self.engine, Path(folder), self.train.lora.enabled)
        if self.rank == 0:
            progress.truncate_log(self.job.work / progress.LOG, reached.step)
        start = f"resuming after step {reached.step}" if reached.step else "starting"
        self._write(
            step=reached.step,
            message=f"{start} of {self.total}: {self.world} workers, {self.device.type}, {self.arithmetic}, "
            f"ZeRO-{self.train.deepspeed.stage}, {len(self.groups)} groups",
        )
        return reached

    def _finish(self) -> None:
        measures = self._measures(self.total) if self._resumed_at_end() else {}
        weights = checkpoint.trained_weights(self.engine, keep=self.rank == 0)
        if self.rank == 0:
            checkpoint.write_model(weights, self.train, self.job.seed, self.job.work / WEIGHTS)
