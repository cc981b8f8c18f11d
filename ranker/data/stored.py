"""The stored form of a collection: Parquet files that every later stage reads.

``corpus/part-00000.parquet`` (at most 50,000 documents a part), ``queries.parquet``, ``qrels/SPLIT.parquet``.
"""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ranker.data.errors import DataError
from ranker.data.splits import Splits
from ranker.registry import nearest
from ranker.schemas import CORPUS, QRELS, QUERIES, Collection, read_table, require

DOCUMENTS_A_PART = 50_000


def save_collection(folder: Path, corpus: pa.Table, queries: pa.Table, qrels_by_split: Mapping[str, pa.Table]) -> None:
    """Write CORPUS, QUERIES and QRELS by split, as every later stage reads them."""
    corpus = require(corpus, CORPUS, "corpus").select(CORPUS.names)
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    (folder / "qrels").mkdir(exist_ok=True)
    for part, start in enumerate(range(0, max(corpus.num_rows, 1), DOCUMENTS_A_PART)):
        rows = corpus.slice(start, DOCUMENTS_A_PART)
        pq.write_table(rows, folder / "corpus" / f"part-{part:05d}.parquet")
    pq.write_table(require(queries, QUERIES, "queries").select(QUERIES.names), folder / "queries.parquet")
    for split, qrels in qrels_by_split.items():
        path = folder / "qrels" / f"{split}.parquet"
        pq.write_table(require(qrels, QRELS, f"qrels {split}").select(QRELS.names), path)


def stored_splits(folder: Path) -> list[str]:
    """Names of the splits that a stored collection has."""
    return sorted(file.stem for file in (folder / "qrels").glob("*.parquet"))


def open_collection(folder: Path, split: str) -> Collection:
    """One split of a stored collection: whole corpus, the queries judged in this split, their judgements.

    Raises:
        FileNotFoundError: where nothing is stored. DataError: on a split that is not there.
    """
    corpus, queries = read_table(folder / "corpus", CORPUS), read_table(folder / "queries.parquet", QUERIES)
    splits = stored_splits(folder)
    if split not in splits:
        raise DataError(f"{folder}: no split {split!r}; {nearest(split, splits)}")
    qrels = read_table(folder / "qrels" / f"{split}.parquet", QRELS)
    return Splits(folder.name, corpus, queries, {split: qrels}).collection(split)
