"""The DeepSpeed loop of one worker, without Ray: it needs a process group and knows not who made it.

Every worker walks through the same steps and calls the same collectives; a decision to stop is made from numbers
that all of them share, so that none is left waiting.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ranker.manifest import write_json
from ranker.torch_on_cpu import keep_freed_blocks
from ranker.training import checkpoint, progress
from ranker.training.batches import Batch, GroupFile, collate
from ranker.training.engine import agree, agree_on_most, choose_for_device, name_accelerator, optimise, start_engine
from ranker.training.engine import sum_over_workers as add
from ranker.training.job import GROUP_FILE, ORDER, OUTCOME, UNIVERSAL, WEIGHTS, Job
from ranker.training.model import choose_attention, load_model
from ranker.training.objective import batch_loss, num_in_batch, prepare
from ranker.training.order import Order, deal, parts_of, total_steps
from ranker.training.progress import TrainingError, Window
from ranker.training.schedule import rate_factor
from ranker.training.scores import padding_values, passes_of, score_batch
from ranker.training.selection import Selection


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
        if not (job.work / GROUP_FILE).is_file():
            raise TrainingError(
                f"{job.work}: this node does not see the folder; put it on storage that all nodes share "
                "(train.output_dir), or keep the workers on one node (train.placement: STRICT_PACK)"
            )
        torch.set_num_threads(max(1, round(job.train.cpus_per_worker)))  # a trial of a sweep gives up a hundredth
        name_accelerator(self.device.type)
        self.groups = GroupFile(job.work / GROUP_FILE)
        parts = parts_of(job.counts, [mix.share for mix in self.train.mix], self.train.batch_size)
        self.order = Order(self.groups.sizes, parts, job.seed, self.train.length_window)
        self.total = total_steps(parts[0].count, parts[0].groups, self.train.epochs, self.train.max_steps)
        arithmetic = agree(choose_for_device(self.train, self.device.type))
        attention = choose_attention(self.train, self.device.type, arithmetic)
        model, self.tokenizer = load_model(self.train, job.seed, attention)
        self.pad = padding_values(self.tokenizer)
        newest = place.newest
        grows = newest is not None and not checkpoint.fits(newest)
        self.engine = start_engine(model, self.train, arithmetic, self.device.type, universal=grows)
        self.peaks = [group["lr"] for group in self.engine.optimizer.param_groups]
        how = passes_of(self.train, arithmetic, self.device)
        if self.device.type == "cpu":
            keep_freed_blocks()
        agreed = partial(agree_on_most, device=self.device) if self.train.deepspeed.stage == 3 else None
        self.how = replace(how, agree=agreed)
        # Of those every worker makes equally many.
        score = partial(score_batch, self.engine, pad=self.pad, how=replace(how, tokens=1 << 30, again=False))
        self.selection = Selection(job, self.tokenizer, self.engine, score, self.rank, self.world)
        if newest is not None and grows:
            newest = checkpoint.convert(newest, job.work / UNIVERSAL, self.rank)
        self.progress = self._restore(newest)
        reached = self.progress.step
        begin = f"resuming after step {reached} of" if reached else "starting"
        self._write(
            step=reached,
            message=f"{begin} {self.total} steps: {self.world} workers on {self.device.type} in {arithmetic}, "
            f"ZeRO-{self.train.deepspeed.stage}, {len(self.groups)} groups, loss {self.train.loss}",
        )

    def loop(self) -> None:
        """The steps that are left."""
        window, since = Window(), time.monotonic()
        health = progress.Health(progress.read_log(self.job.work / progress.LOG, self.progress.step))
        for step in range(self.progress.step, self.total):
            if self.selection.is_enough(self.progress):
                self._write(step=step, message=f"stopping after step {step}: no better measurement in "
                                               f"{self.progress.waited} (train.patience)")  # fmt: skip
                return
            self._step(step, window)
            done = step + 1
            saves = self._due(done, self.train.checkpoint_every) or self._due(done, self.train.evaluate_every)
            if not saves and not self._due(done, self.train.log_every):
                continue
            window = Window(*add(window.as_array(), self.device))
            health.check(window, done)
            self._tell(window, time.monotonic() - since, done)
            if saves:
                self._save(measured=self._due(done, self.train.evaluate_every))
            window, since = Window(), time.monotonic()

    def finish(self) -> None:
        """The model folder, and the numbers that the manifest keeps."""
        weights = self.selection.final_weights(self.progress)
        if self.rank == 0:
            checkpoint.write_model(weights, self.train, self.job.seed, self.job.work / WEIGHTS)
            self.selection.write_others(self.progress, self.job.work / WEIGHTS)
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
        rows = self.order.rows(step)
        dealt = deal(self.groups.sizes[rows], self.train.gradient_accumulation_steps, self.world)
        everything = num_in_batch(self.train) > 0
        mine = [piece[self.rank] for piece in dealt]
        read = np.arange(len(rows)) if everything else np.concatenate(mine)
        groups = prepare([self.groups[rows[place]] for place in read], self.train, (self.job.seed, step))
        at = dict(zip(read.tolist(), groups, strict=True))
        for places in mine:
            # The engine takes the mean over pieces and workers, of which some may have a group more than others.
            share = len(places) * len(dealt) * self.world / len(rows)
            batch = collate([at[place] for place in places.tolist()], self.tokenizer, self.train.max_length)
            self._learn(batch, share, window)
        if self.train.record_order:
            self._record(step, rows)

    def _learn(self, batch: Batch, share: float, window: Window) -> None:
        scores, computed = score_batch(self.engine, batch, self.pad, self.how)
        loss = batch_loss(scores, batch, self.train)
        self.engine.backward(loss * share)
        optimise(self.engine)
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
            tokens_per_second=window.tokens / max(seconds, 1e-9),
            eta=seconds / steps * (self.total - done),
            **window.means(),
        )

    def _save(self, measured: bool) -> None:
        """Report a checkpoint, with the measures for whoever listens (a Tune trial)."""
        if measured and self.selection.devs:
            found, retriever = self.selection.measure()
            self.progress = self.selection.after(self.progress, found)
            best = self.progress.waited == 0
            self._write(step=self.progress.step, total=self.total, dev=found, retriever=retriever, best=best)
        told = {"step": self.progress.step, "total": self.total, "measured": measured and bool(self.selection.devs)}
        metrics = {**told, "loss": self.progress.loss, **self.progress.measures}
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save_state(self.engine, Path(folder), self.progress)
            self.place.report(metrics, Path(folder))

    def _restore(self, newest: Path | None) -> checkpoint.Progress:
        reached = checkpoint.Progress()
        if newest is not None:
            reached = checkpoint.load_state(self.engine, newest)
        if self.rank == 0:
            for name in (progress.LOG, ORDER):
                progress.truncate_log(self.job.work / name, reached.step)
        return reached

    def _record(self, step: int, rows: np.ndarray) -> None:
        if self.rank == 0:
            record = {"step": step + 1, "query_ids": self.groups.query_ids(rows.tolist())}
            progress.append_log(self.job.work / ORDER, record)

    def _write(self, **record: Any) -> None:
        if self.rank == 0:
            progress.append_log(self.job.work / progress.LOG, record)
