"""The stored form of a collection: Parquet files that every later stage reads.

``corpus/part-00000.parquet`` ..., ``queries.parquet``, ``qrels/SPLIT.parquet``, ``collection.json``; where the source
has them ``run.parquet`` and ``triples/SPLIT.parquet``.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ranker.data.parts import PART_ROWS, write_table
from ranker.data.splits import Splits
from ranker.manifest import write_json
from ranker.schemas import (
    CORPUS,
    ID_TRIPLES,
    QRELS,
    QUERIES,
    RUN,
    Collection,
    StoredCorpus,
    TableCorpus,
    read_table,
    require,
)

ABOUT = "collection.json"


def save_collection(folder: Path, corpus: pa.Table, queries: pa.Table, qrels_by_split: Mapping[str, pa.Table]) -> None:
    """Write CORPUS, QUERIES and QRELS by split, as every later stage reads them."""
    documents = TableCorpus(corpus).table().select(CORPUS.names)
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    for part, start in enumerate(range(0, max(documents.num_rows, 1), PART_ROWS)):
        write_table(documents.slice(start, PART_ROWS), folder / "corpus" / f"part-{part:05d}.parquet")
    stored = Splits(folder.name, StoredCorpus(folder / "corpus"), queries, qrels_by_split)
    save_beside_corpus(folder, stored)


def save_beside_corpus(folder: Path, data: Splits) -> None:
    """Write everything but the documents, which lie in ``folder/corpus`` already."""
    pq.write_table(require(data.queries, QUERIES, "queries").select(QUERIES.names), folder / "queries.parquet")
    _save_splits(folder / "qrels", data.qrels, QRELS)
    _save_splits(folder / "triples", data.triples, ID_TRIPLES)
    if data.run is not None:
        pq.write_table(require(data.run, RUN, "run").select(RUN.names), folder / "run.parquet")
    write_json(folder / ABOUT, {"name": data.name, "relevance_levels": dict(data.relevance_levels)})


def _save_splits(folder: Path, tables: Mapping[str, pa.Table], schema: pa.Schema) -> None:
    for split, table in tables.items():
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(require(table, schema, split).select(schema.names), folder / f"{split}.parquet")


def stored_splits(folder: Path) -> list[str]:
    """Names of the splits that a stored collection has."""
    return sorted({file.stem for noun in ("qrels", "triples") for file in (folder / noun).glob("*.parquet")})


def open_splits(folder: Path) -> Splits:
    """All of a stored collection; the documents stay on the disk.

    Raises:
        FileNotFoundError: where nothing is stored.
    """
    about = json.loads((folder / ABOUT).read_text("utf-8")) if (folder / ABOUT).is_file() else {}
    run = folder / "run.parquet"
    return Splits(
        about.get("name", folder.name),
        StoredCorpus(folder / "corpus"),
        read_table(folder / "queries.parquet", QUERIES),
        {file.stem: read_table(file, QRELS) for file in sorted((folder / "qrels").glob("*.parquet"))},
        read_table(run, RUN) if run.is_file() else None,
        {file.stem: read_table(file, ID_TRIPLES) for file in sorted((folder / "triples").glob("*.parquet"))},
        about.get("relevance_levels", {}),
    )


def open_collection(folder: Path, split: str) -> Collection:
    """One split of a stored collection: the corpus on the disk, the queries judged in this split, their judgements.

    Raises:
        FileNotFoundError: where nothing is stored. DataError: on a split that is not there.
    """
    return open_splits(folder).collection(split)
