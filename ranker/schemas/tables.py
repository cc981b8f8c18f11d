"""The table types that flow between stages, and the check that stands at every door.

Column names are those of ir-measures and ir_datasets, so nothing is renamed at a boundary.
"""

from pathlib import Path

import pyarrow as pa
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
# The same by id, as MS MARCO publishes them (qidpidtriples).
ID_TRIPLES = pa.schema([("query_id", pa.string()), ("positive_id", pa.string()), ("negative_id", pa.string())])
# What GROUPS carries beside its columns where it is known: which documents they are, and a teacher's scores of them.
EXAMPLES = pa.schema(
    [
        *GROUPS,
        ("doc_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
    ]
)

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


def document_texts(corpus: pa.Table) -> list[str]:
    """What a model reads of each row of CORPUS: ``title text``, without a leading or trailing space."""
    titles, texts = corpus["title"].to_pylist(), corpus["text"].to_pylist()
    return [f"{title or ''} {text or ''}".strip() for title, text in zip(titles, texts, strict=True)]


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
