"""The table types that flow between stages, and the check that stands at every door.

Column names are those of ir-measures and ir_datasets, so nothing is renamed at a boundary.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

CORPUS = pa.schema([("doc_id", pa.string()), ("title", pa.string()), ("text", pa.string())])
QUERIES = pa.schema([("query_id", pa.string()), ("text", pa.string())])
QRELS = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("relevance", pa.int32())])
RUN = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("score", pa.float64()), ("rank", pa.int32())])
GROUPS = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("documents", pa.list_(pa.string())),
        ("labels", pa.list_(pa.float32())),
    ]
)
PAIRS = pa.schema([("query", pa.string()), ("document", pa.string()), ("label", pa.float32())])
TRIPLES = pa.schema([("query", pa.string()), ("positive", pa.string()), ("negative", pa.string())])

SPLITS = ("train", "dev", "test")


class SchemaError(ValueError):
    """A table that is not of the type that a door asks for."""


def require(table: pa.Table, schema: pa.Schema, where: str = "table") -> pa.Table:
    """``table`` with the columns of ``schema`` cast to its types; further columns are kept behind them.

    Raises:
        SchemaError: naming the columns that are missing, those that were found, or the one that cannot be cast.
    """
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise SchemaError(f"{where}: missing columns {missing}; found {table.column_names}; needed {schema.names}")
    columns, fields = [], []
    for wanted in schema:
        try:
            columns.append(table.column(wanted.name).cast(wanted.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            found = table.schema.field(wanted.name).type
            raise SchemaError(f"{where}: column {wanted.name!r} is {found}, not {wanted.type}: {error}") from error
        fields.append(wanted)
    for name in table.column_names:
        if name not in schema.names:
            columns.append(table.column(name))
            fields.append(table.schema.field(name))
    return pa.table(columns, schema=pa.schema(fields))


@dataclass(frozen=True)
class Collection:
    """Corpus, queries and judgements of one data set, cut to one split.

    Args:
        name: what the data set is called in logs and reports.
        split: ``train``, ``dev`` or ``test``; ``all`` when it was never split.
        corpus: CORPUS. queries: QUERIES. qrels: QRELS, judgements of these queries only.
    """

    name: str
    split: str
    corpus: pa.Table
    queries: pa.Table
    qrels: pa.Table
    run: pa.Table | None = field(default=None)

    def __post_init__(self) -> None:
        label = f"{self.name}/{self.split}"
        for attribute, schema in (("corpus", CORPUS), ("queries", QUERIES), ("qrels", QRELS)):
            table = require(getattr(self, attribute), schema, f"{label} {attribute}")
            object.__setattr__(self, attribute, table)
        if self.run is not None:
            object.__setattr__(self, "run", require(self.run, RUN, f"{label} run"))

    def __repr__(self) -> str:
        return (
            f"Collection({self.name!r}, split={self.split!r}, documents={self.corpus.num_rows}, "
            f"queries={self.queries.num_rows}, judgements={self.qrels.num_rows})"
        )

    def with_queries(self, query_ids: list[str], split: str | None = None) -> "Collection":
        """The same corpus with only these queries and their judgements, in the collection's own order."""
        keep = pa.array(query_ids, pa.string())
        queries = self.queries.filter(pc.is_in(self.queries["query_id"], keep))
        qrels = self.qrels.filter(pc.is_in(self.qrels["query_id"], keep))
        return replace(self, split=split or self.split, queries=queries, qrels=qrels)

    def texts(self) -> dict[str, str]:
        """doc_id -> what a model reads: title and text joined by a space, either alone when the other is empty."""
        return dict(zip(self.corpus["doc_id"].to_pylist(), document_texts(self.corpus), strict=True))


def document_texts(corpus: pa.Table) -> list[str]:
    """What a model reads of each row of CORPUS: ``title text``, without a leading or trailing space."""
    titles, texts = corpus["title"].to_pylist(), corpus["text"].to_pylist()
    return [f"{title or ''} {text or ''}".strip() for title, text in zip(titles, texts, strict=True)]


@dataclass(frozen=True)
class RankedDocument:
    """One document of a reranked list.

    Args:
        doc_id, text: of the document. metadata: what the user stored beside it.
        score: of the reranker (a logit through a sigmoid unless raw scores were asked for).
        rank: 1 for the best. retrieval_score, retrieval_rank: of the first stage; None when there was none.
    """

    doc_id: str
    text: str
    score: float
    rank: int
    retrieval_score: float | None = None
    retrieval_rank: int | None = None
    metadata: dict[str, object] = field(default_factory=dict)


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """A Parquet file (or folder of shards, in name order) as a table of the given type.

    Raises:
        FileNotFoundError: where there is no such file. SchemaError: where it holds another table, or is no Parquet.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such table; run the stage that writes it first")
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    try:
        tables = [require(pq.read_table(file), schema, str(file)) for file in files]
    except pa.ArrowInvalid as error:
        raise SchemaError(f"{path}: not a readable Parquet file: {error}") from error
    return pa.concat_tables(tables) if tables else schema.empty_table()
