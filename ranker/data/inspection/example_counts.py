"""What training examples hold: groups, documents, labels and a teacher's scores, read a block of groups at a time."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ranker.data.inspection.copies import NAMED, Some
from ranker.data.inspection.judged import Spread
from ranker.schemas import EXAMPLES, read_blocks

BLOCK_GROUPS = 1024
# With more different labels than these, ranges of labels are counted.
MAX_LABELS = 20
NUM_RANGES = 10


@dataclass(frozen=True)
class ExampleCounts:
    """The examples of one split.

    Args:
        groups: a query with its documents. documents: of all groups. documents_a_group, positives_a_group: of each
            group; a label above 0 is a positive.
        labels: label, or range of labels where there are many, -> documents. fractional_labels: that are no whole
            number, and so no judgement. without_positive, without_negative, with_copies (the same text twice): groups,
            some named by their query. scored: groups with a teacher's scores.
    """

    groups: int
    documents: int
    documents_a_group: Spread | None
    positives_a_group: Spread | None
    labels: dict[str, int]
    fractional_labels: int
    without_positive: Some
    without_negative: Some
    with_copies: Some
    scored: int


@dataclass
class _Tally:
    """Numbers of which least, mean and most are wanted."""

    count: int = 0
    total: float = 0
    least: float = math.inf
    most: float = -math.inf

    def add(self, number: float) -> None:
        self.count, self.total = self.count + 1, self.total + number
        self.least, self.most = min(self.least, number), max(self.most, number)

    def spread(self) -> Spread | None:
        return Spread(self.least, self.total / self.count, self.most) if self.count else None


@dataclass
class _Named:
    """Queries that something is true of: counted, and the first ones named."""

    count: int = 0
    some: list[str] = field(default_factory=list)

    def add(self, query: str) -> None:
        self.count += 1
        if len(self.some) < NAMED:
            self.some.append(query)

    def found(self) -> Some:
        return Some(self.count, tuple(self.some))


def count_examples(parts: Sequence[Path]) -> ExampleCounts:
    """Of EXAMPLES in Parquet parts."""
    sizes, positives = _Tally(), _Tally()
    without_positive, without_negative, with_copies = _Named(), _Named(), _Named()
    fractional = scored = 0
    for row in _rows(parts):
        labels, query = row["labels"], row["query"]
        num_positives = sum(label > 0 for label in labels)
        sizes.add(len(labels))
        positives.add(num_positives)
        fractional += sum(not float(label).is_integer() for label in labels)
        scored += any(score is not None for score in row["scores"] or ())
        for named, is_so in (
            (without_positive, not num_positives),
            (without_negative, num_positives == len(labels)),
            (with_copies, len(set(row["documents"])) < len(row["documents"])),
        ):
            if is_so:
                named.add(query)
    return ExampleCounts(
        sizes.count,
        int(sizes.total),
        sizes.spread(),
        positives.spread(),
        count_labels(parts),
        fractional,
        without_positive.found(),
        without_negative.found(),
        with_copies.found(),
        scored,
    )


def _rows(parts: Sequence[Path], schema: pa.Schema = EXAMPLES) -> Iterator[dict[str, Any]]:
    for part in parts:
        for block in read_blocks(part, schema, BLOCK_GROUPS):
            yield from block.to_pylist()


def count_labels(parts: Sequence[Path]) -> dict[str, int]:
    """Label -> documents, in rising order; ten ranges of equal width where there are more than MAX_LABELS labels."""
    counts: Counter[float] = Counter()
    least, most = math.inf, -math.inf
    for label in _labels(parts):
        least, most = min(least, label), max(most, label)
        if len(counts) <= MAX_LABELS:
            counts[label] += 1
    if len(counts) <= MAX_LABELS:
        return {_written(label): count for label, count in sorted(counts.items())}
    width = (most - least) / NUM_RANGES
    ranges = [0] * NUM_RANGES
    for label in _labels(parts):
        ranges[min(int((label - least) / width), NUM_RANGES - 1)] += 1
    edges = _told_apart([least + width * number for number in range(NUM_RANGES + 1)])
    return {f"{low} to {high}": count for (low, high), count in zip(pairwise(edges), ranges, strict=True)}


def _written(label: float) -> str:
    return str(int(label)) if label.is_integer() else str(np.float32(label))


def _told_apart(numbers: Sequence[float]) -> list[str]:
    """With as few digits as tell them apart."""
    written = ([f"{number:.{digits}g}" for number in numbers] for digits in range(2, 18))
    return next(each for each in written if len(set(each)) == len(numbers))


def _labels(parts: Sequence[Path]) -> Iterator[float]:
    for row in _rows(parts, pa.schema([EXAMPLES.field("labels")])):
        yield from row["labels"]
