"""From stored groups to what a worker computes: cut groups, negatives of other queries, flat token batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from ranker.schemas import EXAMPLES, GROUPS
from ranker.scoring.pairs import encode_pairs

ROWS_PER_CHUNK = 1024
SIZE = "size"  # characters of a group, the stand-in for its tokens
SCORES = "scores"
STORED = GROUPS.append(EXAMPLES.field(SCORES))


@dataclass(frozen=True)
class Group:
    """One query with its documents and their labels, as stored.

    Args:
        scores: a teacher's or the retriever's, NaN where there is none; empty where a group has none at all.
    """

    query: str
    documents: tuple[str, ...]
    labels: tuple[float, ...]
    scores: tuple[float, ...] = ()

    def take(self, places: Sequence[int]) -> "Group":
        """The same with these documents."""
        scores = tuple(self.scores[place] for place in places) if self.scores else ()
        documents = tuple(self.documents[place] for place in places)
        labels = tuple(self.labels[place] for place in places)
        return Group(self.query, documents, labels, scores)


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
        scores = tuple(math.nan if score is None else score for score in values[SCORES] or ())
        return Group(values["query"], tuple(values["documents"]), tuple(values["labels"]), scores)

    def query_ids(self, rows: Sequence[int]) -> list[str]:
        """Of these groups."""
        places = [divmod(int(row), ROWS_PER_CHUNK) for row in rows]
        return [self._reader.get_batch(chunk).column("query_id")[place].as_py() for chunk, place in places]


def write_group_file(groups: pa.Table, path: Path) -> None:
    """GROUPS as a file of equal uncompressed chunks, which can be memory-mapped and entered at any row.

    Args:
        groups: with a column ``scores`` where there are any.

    Raises:
        ValueError: as :func:`whole_groups`.
    """
    groups = whole_groups(groups)
    schema = STORED.append(pa.field(SIZE, pa.int64()))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, groups.num_rows, ROWS_PER_CHUNK):
            chunk = groups.slice(start, ROWS_PER_CHUNK).combine_chunks()
            writer.write_table(chunk.append_column(SIZE, pa.array(_characters(chunk))), ROWS_PER_CHUNK)


def whole_groups(groups: pa.Table, where: str = "groups") -> pa.Table:
    """Columns of GROUPS and ``scores``, null where there are none.

    Args:
        where: what an error calls the table.

    Raises:
        ValueError: naming the first rows without documents, or whose labels or scores are not one a document.
    """
    if SCORES not in groups.column_names:
        groups = groups.append_column(SCORES, pa.nulls(groups.num_rows, STORED.field(SCORES).type))
    groups = groups.select(STORED.names).cast(STORED)
    documents, labels, scores = (pc.list_value_length(groups[name]) for name in ("documents", "labels", SCORES))
    labelled = pc.fill_null(pc.and_(pc.equal(documents, labels), pc.greater(documents, 0)), False)
    scored = pc.fill_null(pc.equal(documents, scores), True)
    _refuse(labelled, where, "have no documents or not one label a document")
    _refuse(scored, where, "have not one score a document")
    return groups


def _refuse(good: pa.ChunkedArray, where: str, what: str) -> None:
    bad = np.flatnonzero(~good.to_numpy().astype(bool))
    if len(bad):
        raise ValueError(f"{where}: {len(bad)} groups {what}; rows {bad[:5].tolist()}")


def _characters(groups: pa.Table) -> np.ndarray:
    queries = pc.utf8_length(groups["query"]).to_numpy()
    counts = pc.list_value_length(groups["documents"]).to_numpy()
    documents = pc.utf8_length(pc.list_flatten(groups["documents"])).to_numpy().astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.add.reduceat(documents, starts) + queries * counts


def cut(labels: Sequence[float], group_size: int) -> list[int]:
    """Positions of the documents that stay when a group is cut to ``group_size``, in stored order.

    At most half are positives (label above 0) while there are negatives to fill the rest.
    """
    positives = [position for position, label in enumerate(labels) if label > 0]
    negatives = [position for position, label in enumerate(labels) if label <= 0]
    wanted = max(1, group_size // 2, group_size - len(negatives))
    kept = positives[:wanted]
    return sorted(kept + negatives[: group_size - len(kept)])


def widen(groups: Sequence[Group], count: int, seed: Sequence[int]) -> list[Group]:
    """Each group with ``count`` documents of the others behind its own, as negatives, never a text that it has itself.

    Args:
        groups: of one step, cut. count: fewer where the others have not so many. seed: of the draw.
    """
    generator = np.random.default_rng(list(seed))
    owners = np.repeat(np.arange(len(groups)), [len(group.documents) for group in groups])
    texts = [text for group in groups for text in group.documents]
    order = generator.permutation(len(texts))
    widened = []
    for row, group in enumerate(groups):
        start = int(generator.integers(len(order)))
        own, drawn = set(group.documents), list[str]()
        for place in np.roll(order, -start):
            if len(drawn) == count:
                break
            if owners[place] != row and texts[place] not in own:
                own.add(texts[place])
                drawn.append(texts[place])
        nothing = (math.nan,) * len(drawn) if group.scores else ()
        labels = (*group.labels, *(0.0,) * len(drawn))
        widened.append(Group(group.query, (*group.documents, *drawn), labels, (*group.scores, *nothing)))
    return widened


@dataclass(frozen=True)
class Batch:
    """The pairs of some groups.

    Args:
        columns: token ids and masks of each pair as unpadded lists, group after group.
        lengths: (pairs,) tokens. labels: (G, D) float32. mask: (G, D) bool, True where there is a document.
        scores: (G, D) float32, NaN where there is none.
    """

    columns: dict[str, list[list[int]]]
    lengths: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    scores: np.ndarray


def collate(groups: Sequence[Group], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Batch:
    """Tokenise the pairs of cut groups and lay out labels and mask, whose True places are the pairs in order."""
    widest = max(len(group.documents) for group in groups)
    labels = np.zeros((len(groups), widest), dtype=np.float32)
    mask = np.zeros((len(groups), widest), dtype=bool)
    scores = np.full((len(groups), widest), np.nan, dtype=np.float32)
    for row, group in enumerate(groups):
        labels[row, : len(group.labels)] = group.labels
        mask[row, : len(group.labels)] = True
        scores[row, : len(group.scores)] = group.scores
    pairs = [(group.query, document) for group in groups for document in group.documents]
    columns = dict(encode_pairs(tokenizer, pairs, max_length))
    lengths = np.array([len(ids) for ids in columns["input_ids"]], dtype=np.int64)
    return Batch(columns, lengths, labels, mask, scores)
