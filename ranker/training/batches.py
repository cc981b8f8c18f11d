"""From stored groups to what a worker computes: seeded order, equal shares, cut groups, flat token batches.

Which groups a step takes is a function of (seed, step) alone, so a resumed run sees exactly what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from ranker.schemas import GROUPS
from ranker.scoring.pairs import encode_pairs

ROWS_PER_CHUNK = 1024
SIZE = "size"  # characters of a group, the stand-in for its tokens


@dataclass(frozen=True)
class Group:
    """One query with its documents and their labels, as stored."""

    query: str
    documents: tuple[str, ...]
    labels: tuple[float, ...]


class GroupFile:
    """Groups by row number from a memory-mapped file: all workers of a machine share one copy of its pages."""

    def __init__(self, path: Path) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        chunks = [self._reader.get_batch(number) for number in range(self._reader.num_record_batches)]
        self.sizes = np.concatenate([chunk.column(SIZE).to_numpy() for chunk in chunks])

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, row: int) -> Group:
        chunk, place = divmod(int(row), ROWS_PER_CHUNK)
        values = self._reader.get_batch(chunk).slice(place, 1).to_pylist()[0]
        return Group(values["query"], tuple(values["documents"]), tuple(values["labels"]))


def write_group_file(groups: pa.Table, path: Path) -> None:
    """GROUPS as a file of equal uncompressed chunks, which can be memory-mapped and entered at any row.

    Raises:
        ValueError: naming the first rows without documents, or whose documents and labels differ in number.
    """
    groups = groups.select(GROUPS.names)
    documents, labels = pc.list_value_length(groups["documents"]), pc.list_value_length(groups["labels"])
    good = pc.fill_null(pc.and_(pc.equal(documents, labels), pc.greater(documents, 0)), False)
    if not pc.all(good).as_py():
        bad = np.flatnonzero(~good.to_numpy())
        raise ValueError(f"{len(bad)} groups have no documents or not one label a document; rows {bad[:5].tolist()}")
    schema = GROUPS.append(pa.field(SIZE, pa.int64()))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, groups.num_rows, ROWS_PER_CHUNK):
            chunk = groups.slice(start, ROWS_PER_CHUNK).combine_chunks()
            writer.write_table(chunk.append_column(SIZE, pa.array(_characters(chunk))), ROWS_PER_CHUNK)


def _characters(groups: pa.Table) -> np.ndarray:
    queries = pc.utf8_length(groups["query"]).to_numpy()
    counts = pc.list_value_length(groups["documents"]).to_numpy()
    documents = pc.utf8_length(pc.list_flatten(groups["documents"])).to_numpy().astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.add.reduceat(documents, starts) + queries * counts


def total_steps(num_groups: int, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Optimiser steps of a run, one at least."""
    steps = max(1, round(epochs * num_groups / batch_size))
    return min(steps, max_steps) if max_steps else steps


def step_rows(step: int, batch_size: int, num_groups: int, seed: int) -> np.ndarray:
    """Rows of one optimiser step: the next ``batch_size`` of the epochs' permutations laid end to end.

    A batch may hold the end of one epoch and the start of the next, so none is short and no group is left out.

    Args:
        step: from 0. batch_size: groups. num_groups: rows of the file.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = positions // num_groups, positions % num_groups
    rows = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        permutation = np.random.default_rng([seed, int(epoch)]).permutation(num_groups)
        rows[epochs == epoch] = permutation[places[epochs == epoch]]
    return rows


def deal(rows: np.ndarray, sizes: np.ndarray, num_pieces: int, num_workers: int) -> np.ndarray:
    """The rows as (pieces, workers, groups): pieces of like length, dealt in turn so that no worker waits for another.

    Args:
        rows: of one step; a multiple of pieces x workers. sizes: length of each of these rows, in any unit.
    """
    ordered = rows[np.argsort(sizes, kind="stable")]
    return ordered.reshape(num_pieces, -1, num_workers).transpose(0, 2, 1)


def cut(labels: Sequence[float], group_size: int) -> list[int]:
    """Positions of the documents that stay when a group is cut to ``group_size``, in stored order.

    At most half are positives (label above 0) while there are negatives to fill the rest.
    """
    positives = [position for position, label in enumerate(labels) if label > 0]
    negatives = [position for position, label in enumerate(labels) if label <= 0]
    wanted = max(1, group_size // 2, group_size - len(negatives))
    kept = positives[:wanted]
    return sorted(kept + negatives[: group_size - len(kept)])


@dataclass(frozen=True)
class Batch:
    """The pairs of some groups.

    Args:
        columns: token ids and masks of each pair as unpadded lists, group after group.
        lengths: (pairs,) tokens. labels: (G, D) float32. mask: (G, D) bool, True where there is a document.
    """

    columns: dict[str, list[list[int]]]
    lengths: np.ndarray
    labels: np.ndarray
    mask: np.ndarray


def collate(groups: Sequence[Group], tokenizer: PreTrainedTokenizerBase, max_length: int, group_size: int) -> Batch:
    """Cut the groups, tokenise their pairs and lay out labels and mask, whose True places are the pairs in order."""
    kept = [cut(group.labels, group_size) for group in groups]
    widest = max(map(len, kept))
    labels = np.zeros((len(groups), widest), dtype=np.float32)
    mask = np.zeros((len(groups), widest), dtype=bool)
    pairs = []
    for row, (group, positions) in enumerate(zip(groups, kept, strict=True)):
        labels[row, : len(positions)] = [group.labels[position] for position in positions]
        mask[row, : len(positions)] = True
        pairs += [(group.query, group.documents[position]) for position in positions]
    columns = dict(encode_pairs(tokenizer, pairs, max_length))
    lengths = np.array([len(ids) for ids in columns["input_ids"]], dtype=np.int64)
    return Batch(columns, lengths, labels, mask)
