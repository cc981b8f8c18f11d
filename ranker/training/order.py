"""Which groups a step takes: a function of (seed, step) alone, whatever the number of workers.

So a resumed run sees exactly what is left, also when it goes on with more workers or fewer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Groups that take a fixed share of every batch.

    Args:
        start, count: their rows. groups: of them in a batch.
    """

    start: int
    count: int
    groups: int


def parts_of(counts: Sequence[int], shares: Sequence[float], batch_size: int) -> list[Part]:
    """One part a source: the first has what the others' ``shares`` of a batch leave, one group at least.

    Args:
        counts: groups of each source, laid end to end. shares: of all but the first.

    Raises:
        ValueError: where the batch is too small for a group of each.
    """
    others = [max(1, round(share * batch_size)) for share in shares]
    first = batch_size - sum(others)
    if first < 1:
        raise ValueError(
            f"batch_size {batch_size}: train.mix takes {sum(others)} groups of it; raise batch_size or lower the shares"
        )
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).tolist()
    return [Part(*part) for part in zip(starts, counts, [first, *others], strict=True)]


def total_steps(num_groups: int, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Optimiser steps of a run, one at least."""
    steps = max(1, round(epochs * num_groups / batch_size))
    return min(steps, max_steps) if max_steps else steps


class Order:
    """The rows of each step: for each part the next of its epochs' permutations laid end to end.

    A batch may hold the end of one epoch and the start of the next, so none is short and no group is left out.

    Args:
        sizes: (rows,) length of each group in any unit. parts: of a batch. seed: of the permutations.
        window: batches of a permutation whose groups are sorted by length and dealt to batches of like length, which
            then come in random order. 1: as the permutation has them.
    """

    def __init__(self, sizes: NDArray[np.int64], parts: Sequence[Part], seed: int, window: int = 1) -> None:
        self._sizes, self._parts, self._seed, self._window = sizes, list(parts), seed, window
        self._permutation = lru_cache(maxsize=2 * len(self._parts))(self._shuffled)

    def rows(self, step: int) -> Rows:
        """Of one optimiser step, from 0."""
        return np.concatenate([self._rows(number, step) for number in range(len(self._parts))])

    def _rows(self, number: int, step: int) -> Rows:
        part = self._parts[number]
        positions = np.arange(step * part.groups, (step + 1) * part.groups)
        epochs, places = positions // part.count, positions % part.count
        rows = np.empty(part.groups, dtype=np.int64)
        for epoch in np.unique(epochs):
            rows[epochs == epoch] = self._permutation(number, int(epoch))[places[epochs == epoch]]
        return rows + part.start

    def _shuffled(self, number: int, epoch: int) -> Rows:
        part = self._parts[number]
        seeds = [self._seed, epoch] + ([number] if number else [])
        generator = np.random.default_rng(seeds)
        rows = generator.permutation(part.count)
        if self._window == 1:
            return rows
        sizes = self._sizes[part.start : part.start + part.count]
        sorted_runs = []
        for start in range(0, part.count, self._window * part.groups):
            run = rows[start : start + self._window * part.groups]
            run = run[np.argsort(sizes[run], kind="stable")]
            batches = np.array_split(run, range(part.groups, len(run), part.groups))
            # The short one stays last, so that those of the next run begin where a step does.
            whole = generator.permutation(len(run) // part.groups).tolist()
            sorted_runs += [*(batches[place] for place in whole), *batches[len(whole) :]]
        return np.concatenate(sorted_runs)


def deal(sizes: NDArray[np.int64], num_pieces: int, num_workers: int) -> list[list[Rows]]:
    """Places of a step's groups as [piece][worker]: pieces of like length, dealt in turn so that no worker waits.

    A worker may get one group more than another.

    Args:
        sizes: length of each group of the step; pieces x workers of them at least.
    """
    ordered = np.argsort(sizes, kind="stable")
    return [
        [piece[worker::num_workers] for worker in range(num_workers)] for piece in np.array_split(ordered, num_pieces)
    ]
