"""Texts that occur twice, found by their digests: a digest is 16 bytes, so that no text is kept to be compared."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

# Digests that are in memory at once, and copies that are named.
RANGE_ROWS = 500_000
NAMED = 5

Digests = NDArray[np.uint64]


@dataclass(frozen=True)
class Some:
    """How many there are, and the first of them."""

    count: int = 0
    some: tuple[str, ...] = ()


@dataclass(frozen=True)
class Copies:
    """How many have the text of one before them, and the first (id, id of the one before)."""

    count: int = 0
    some: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Repeats:
    """What stands in a data set more than once.

    Args:
        doc_ids, query_ids: rows with the id of one before; they are left out of all other counts.
        judgements: rows with the query and document of one before, in the same split; left out as well.
        documents: copies by what a model reads of them (see ``document_texts``); empty ones are not compared.
        queries: copies by text, whatever its case and white space.
    """

    doc_ids: Some = field(default_factory=Some)
    query_ids: Some = field(default_factory=Some)
    judgements: Some = field(default_factory=Some)
    documents: Copies = field(default_factory=Copies)
    queries: Copies = field(default_factory=Copies)


class _Found(NamedTuple):
    """(part, row) of a copy and of the first one with its text."""

    part: int
    row: int
    first_part: int
    first_row: int


def some_of(values: pa.Array | pa.ChunkedArray) -> Some:
    """All of them counted, the first ones named."""
    return Some(len(values), tuple(values[:NAMED].to_pylist()))


def digests_of(texts: Sequence[str]) -> Digests:
    """BLAKE2b of each text, 128 bits: (n, 2). Two texts with the same one are not to be expected."""
    joined = b"".join(blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64).reshape(-1, 2)


def save_digests(path: Path, digests: Digests, rows: NDArray[np.int64]) -> None:
    """What :func:`find_copies` reads of a part: its digests, sorted, and in which rows they stand."""
    order = np.argsort(digests[:, 0], kind="stable")
    np.save(path, np.stack([digests[order, 0], digests[order, 1], rows[order].astype(np.uint64)]))


def find_copies(parts: Sequence[Path], digests: Sequence[Path]) -> Copies:
    """Documents whose text stands in an earlier row or part.

    Args:
        parts: Parquet of CORPUS. digests: of each part, as :func:`save_digests` wrote them.
    """
    stored = [np.load(path, mmap_mode="r") for path in digests]
    total = sum(each.shape[1] for each in stored)
    ranges = max(1, -(-total // RANGE_ROWS))
    edges = [round(i * 2**64 / ranges) for i in range(ranges + 1)]
    count, first = 0, list[_Found]()
    for low, high in pairwise(edges):
        number, found = _copies_between(stored, low, high)
        count += number
        first = sorted([*first, *found])[:NAMED]
    named = tuple(
        (_doc_id(parts[each.part], each.row), _doc_id(parts[each.first_part], each.first_row)) for each in first
    )
    return Copies(count, named)


def _copies_between(stored: Sequence[Any], low: int, high: int) -> tuple[int, list[_Found]]:
    """Copies whose digests begin between two numbers: how many, and the first ones."""
    found = [np.zeros((4, 0), dtype=np.uint64)]
    for number, each in enumerate(stored):
        start = int(np.searchsorted(each[0], np.uint64(low)))
        end = int(np.searchsorted(each[0], np.uint64(high))) if high < 2**64 else each.shape[1]
        part = np.array(each[:, start:end])
        found.append(np.stack([part[0], part[1], np.full(end - start, number, dtype=np.uint64), part[2]]))
    one, two, numbers, rows = np.concatenate(found, axis=1)
    order = np.lexsort((rows, numbers, two, one))
    one, two, numbers, rows = one[order], two[order], numbers[order], rows[order]
    same = np.append(False, (one[1:] == one[:-1]) & (two[1:] == two[:-1]))
    firsts = np.maximum.accumulate(np.where(same, 0, np.arange(len(same)))) if len(one) else np.zeros(0, dtype=np.int64)
    copies = np.flatnonzero(same)
    named = copies[np.lexsort((rows[copies], numbers[copies]))[:NAMED]]
    places = [(numbers[at], rows[at], numbers[firsts[at]], rows[firsts[at]]) for at in named]
    return len(copies), [_Found(*map(int, place)) for place in places]


def _doc_id(part: Path, row: int) -> str:
    doc_id: str = pq.read_table(part, columns=["doc_id"])["doc_id"][row].as_py()
    return doc_id


def copied_queries(queries: pa.Table) -> Copies:
    """Queries with the text of one before them, whatever its case and white space."""
    texts = plain_texts(queries["text"]).to_pandas()
    copies = np.flatnonzero(texts.duplicated() & (texts != ""))
    first = {text: row for row, text in reversed(list(enumerate(texts)))} if len(copies) else {}
    ids = queries["query_id"]
    named = [(ids[int(row)].as_py(), ids[first[texts[row]]].as_py()) for row in copies[:NAMED]]
    return Copies(len(copies), tuple(named))


def plain_texts(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """In lower case, and with one space where there is any white space."""
    return pc.replace_substring_regex(pc.utf8_lower(pc.utf8_trim_whitespace(texts)), r"\s+", " ")
