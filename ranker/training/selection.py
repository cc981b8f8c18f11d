"""Measurements on dev queries while it trains, the best weights, and when to stop."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from ranker.training import checkpoint, measure
from ranker.training.batches import Batch
from ranker.training.checkpoint import Progress
from ranker.training.engine import scoring, sum_over_workers
from ranker.training.job import KEPT, Job


class Selection:
    """What one worker knows of the measurements; every worker calls the same.

    Args:
        job: the run. tokenizer: of the model. engine: DeepSpeed's. score: (batch) -> scores and computed tokens.
        rank, num_workers: this worker's place.
    """

    def __init__(
        self, job: Job, tokenizer: Any, engine: Any, score: Callable[..., Any], rank: int, num_workers: int
    ) -> None:
        self._job, self._train, self._engine, self._score = job, job.train, engine, score
        self._rank, self._world = rank, num_workers
        self.devs = {
            name: measure.load_dev(folder, tokenizer, job.train.max_length) for name, folder in job.dev.items()
        }

    def measure(self) -> tuple[dict[str, float], dict[str, float]]:
        """Measures of all dev sets by name, the model's and the retriever's."""
        found: dict[str, float] = {}
        retriever: dict[str, float] = {}
        with scoring(self._engine):
            for name, dev in self.devs.items():
                means = measure.measure(dev, self._score_rows, self._add, self._rank, self._world)
                found |= measure.named(name, means)
                retriever |= measure.named(name, measure.retriever_measures(dev))
        return found, retriever

    def after(self, progress: Progress, measures: dict[str, float]) -> Progress:
        """The progress with a measurement; the weights are kept where they are among the best."""
        value = measure.selected(measures, self._train.metric)
        # Of equal ones the earlier stays the better.
        ranked = sorted([*progress.best, (value, progress.step)], key=lambda pair: (-pair[0], pair[1]))
        best = ranked[: self._train.keep_best]
        waited = 0 if best[0][1] == progress.step else progress.waited + 1
        # Without measurements on the way the last weights are the only ones.
        if self._train.evaluate_every and (value, progress.step) in best:
            self._keep(progress.step, {step for _, step in best})
        return replace(progress, measures=measures, best=best, waited=waited)

    def is_enough(self, progress: Progress) -> bool:
        """Whether it has waited for a better measurement as long as it may."""
        return self._train.patience is not None and progress.waited >= self._train.patience

    def final_weights(self, progress: Progress) -> dict[str, Any]:
        """Trained weights of the best measurement, else the last; empty on all workers but the first."""
        chosen = self._file(progress.best[0][1]) if progress.best and self._train.evaluate_every else None
        if chosen is None:
            return checkpoint.trained_weights(self._engine, keep=self._rank == 0)
        return load_file(chosen) if self._rank == 0 else {}

    def write_others(self, progress: Progress, folder: Path) -> None:
        """The next best as model folders ``step-N`` in ``folder``."""
        if not self._train.evaluate_every:
            return
        for _, step in progress.best[1:]:
            weights = load_file(self._file(step))
            checkpoint.write_model(weights, self._train, self._job.seed, folder / f"step-{step}")

    def _keep(self, step: int, steps: set[int]) -> None:
        weights = checkpoint.trained_weights(self._engine, keep=self._rank == 0)
        if self._rank == 0:
            checkpoint.save_weights(weights, self._file(step))
            for file in self._job.work.glob(KEPT.format("*")):
                if file not in {self._file(kept) for kept in steps}:
                    file.unlink()

    def _file(self, step: int) -> Path:
        return self._job.work / KEPT.format(step)

    def _score_rows(self, columns: Mapping[str, Sequence[Sequence[int]]], rows: np.ndarray) -> np.ndarray:
        part = {name: [list(column[row]) for row in rows] for name, column in columns.items()}
        lengths = np.array([len(ids) for ids in part["input_ids"]])
        shape = (len(rows), 1)
        batch = Batch(part, lengths, np.zeros(shape, np.float32), np.ones(shape, bool), np.zeros(shape, np.float32))
        scores, _ = self._score(batch=batch)
        return scores[:, 0].double().cpu().numpy()

    def _add(self, values: np.ndarray) -> np.ndarray:
        return sum_over_workers(values, self._engine.device)
