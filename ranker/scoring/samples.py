"""The pairs on which ways to score are compared: the user's own where there are any."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from ranker.manifest import MANIFEST
from ranker.schemas import GROUPS, require

Pair = tuple[str, str]


class Samples(NamedTuple):
    """Pairs, and their relevance (n,) where it is known."""

    pairs: list[Pair]
    labels: np.ndarray | None

    def first(self, count: int) -> "Samples":
        """The first ``count`` of them."""
        return Samples(self.pairs[:count], None if self.labels is None else self.labels[:count])


# For a model without a finished `mine` stage beside it: every question with every text, which other texts follow.
QUESTIONS = (
    "how do plants make food",
    "What is the capital of France?",
    "why is the sky blue",
    "side effects of ibuprofen",
    "how to read a file line by line in Python",
    "who wrote Don Quixote",
    "best way to store fresh bread",
    "what causes inflation",
)
TEXTS = (
    "Plants turn sunlight, water and carbon dioxide into sugar by photosynthesis, which takes place in chloroplasts.",
    "Paris is the capital and most populous city of France, on the river Seine.",
    "Molecules of the air scatter blue light from the sun more than they scatter red light.",
    "Ibuprofen may cause nausea, heartburn, dizziness and, rarely, bleeding of the stomach. Take it with food.",
    "Open the file in a with statement and iterate over it: each step of the loop gives the next line.",
    "Miguel de Cervantes published the first part of Don Quixote in 1605 and the second in 1615.",
    "Keep bread in a paper bag at room temperature for two days, or freeze it in slices.",
    "Prices rise when demand outruns supply, when costs go up, or when the amount of money grows faster than output.",
)


def sample_file(mine_folder: Path) -> Path | None:
    """The groups that a finished `mine` stage left: those of the dev queries, else those for training."""
    if not (mine_folder / MANIFEST).is_file():
        return None
    files = (mine_folder / name for name in ("dev_groups.parquet", "groups.parquet"))
    return next((file for file in files if file.is_file() and pq.ParquetFile(file).metadata.num_rows), None)


def sample_pairs(file: Path | None, num_samples: int, skip: int = 0) -> Samples:
    """``num_samples`` pairs (or all, when fewer) of a GROUPS file; the built-in 64 without one.

    Queries are taken in turn, so that each gives the same number of its documents, best first.

    Args:
        skip: groups at the beginning that are left out, where as many remain: what was calibrated on them is measured
            on others.
    """
    if file is None:
        return Samples(builtin_pairs()[:num_samples], None)
    table = pq.read_table(file)
    table = table.slice(skip if table.num_rows >= 2 * skip else 0, num_samples)
    rows = require(table, GROUPS, str(file)).select(["query", "documents", "labels"]).to_pylist()
    # At least four documents a query: the order within a list is what a reranker is for.
    chosen = rows[: max(1, min(len(rows), num_samples // 4))]
    deepest = max(len(row["documents"]) for row in chosen)
    turns = [(row["query"], row["documents"][turn], row["labels"][turn]) for turn in range(deepest) for row in chosen
             if turn < len(row["documents"])][:num_samples]  # fmt: skip
    if not turns:
        return Samples(builtin_pairs()[:num_samples], None)
    return Samples([(query, text) for query, text, _ in turns], np.array([label for _, _, label in turns], dtype=float))


def sample_lists(file: Path | None, num_pairs: int) -> Samples:
    """Whole lists of a GROUPS file, a query at a time, until ``num_pairs`` pairs are had; built-in without a file."""
    if file is None:
        return Samples(builtin_pairs(), None)
    rows = require(pq.read_table(file), GROUPS, str(file)).select(["query", "documents", "labels"])
    pairs: list[Pair] = []
    labels: list[float] = []
    for row in (row for batch in rows.to_batches(max_chunksize=64) for row in batch.to_pylist()):
        if len(pairs) >= num_pairs:
            break
        pairs += [(row["query"], text) for text in row["documents"]]
        labels += row["labels"]
    return Samples(pairs, np.array(labels, dtype=float)) if pairs else Samples(builtin_pairs(), None)


def texts_of(file: Path, num_texts: int) -> list[str]:
    """The different texts of the pairs of a GROUPS file, documents before queries, ``num_texts`` at most."""
    pairs = sample_pairs(file, num_texts).pairs
    return list(dict.fromkeys([*(text for _, text in pairs), *(query for query, _ in pairs)]))[:num_texts]


def builtin_pairs() -> list[Pair]:
    """Sixty-four pairs of general knowledge.

    Documents are of one to four texts, since what is fastest for a sentence may not be for a passage.
    """
    texts = (*TEXTS, *TEXTS)
    documents = [" ".join(texts[start : start + 1 + start // 2]) for start in range(len(TEXTS))]
    return [(question, document) for question in QUESTIONS for document in documents]
