"""What was chosen as tables: which document is which, and GROUPS with their texts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.config import RayConfig
from ranker.data.assembly import Finish
from ranker.data.grouping import LABELLED, group_texts
from ranker.data.labels import ids_at
from ranker.schemas import EXAMPLES, GROUPS, Collection
from ranker.training.choosing import Chosen
from ranker.training.known import positions_of

# Beside the groups while they are written: an interrupted call goes on.
GROUPS_WORK = "groups"
# Metadata of groups.parquet: whose the scores are.
SCORES_BY = "scores"
# Documents of each group but those that were judged relevant. ``score``: similarity; ``teacher``: logit.
NEGATIVES = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_id", pa.string()),
        ("label", pa.float32()),
        ("score", pa.float64()),
        ("rank", pa.int32()),
        ("teacher", pa.float32()),
    ]
)


def negatives_table(train: Collection, chosen: Chosen) -> pa.Table:
    """NEGATIVES by query, those that the teacher made positives first; score and rank are null for drawn ones."""
    relevant = float(max(1, train.relevance_level))
    rows = [
        (row, key, label, score, rank or None, choice.logits.get(key))
        for row, choice in enumerate(chosen.choices)
        for key, label, score, rank in [
            *((key, relevant, None, 0) for key in choice.relabelled),
            *((k, 0.0, s if r else None, r) for k, s, r in
              zip(choice.negatives, choice.similarities, choice.ranks, strict=True)),
        ]
    ]  # fmt: skip
    queries, keys, *rest = [list(column) for column in zip(*rows, strict=True)] or [[]] * 6
    query_ids = train.queries["query_id"].take(pa.array(queries, pa.int64()))
    doc_ids = ids_at(train.documents, np.array(keys, dtype=np.int64))
    return pa.table([query_ids, doc_ids, *rest], schema=NEGATIVES)


@dataclass(frozen=True)
class Opinions:
    """Scores of every document of the groups, for distillation.

    Args:
        by: ``teacher`` (logits) or ``retriever`` (similarities).
        positives: of each row of ``train.relevant()``, None where there is none. negatives: of each row of NEGATIVES.
    """

    by: str
    positives: Sequence[float | None]
    negatives: Sequence[float | None]


def teacher_opinions(train: Collection, chosen: Chosen, negatives: pa.Table) -> Opinions:
    """The teacher's logits."""
    logits = [chosen.choices[row].logits.get(key) for row, key in _relevant_places(train)]
    return Opinions("teacher", logits, negatives["teacher"].to_pylist())


def retriever_opinions(train: Collection, chosen: Chosen, negatives: pa.Table) -> Opinions:
    """The bi-encoder's similarities; one pass over the embeddings."""
    places = [*_relevant_places(train)]
    num_relevant = len(places)
    places += [(n, key) for n, choice in enumerate(chosen.choices) for key in (*choice.relabelled, *choice.negatives)]
    rows, keys = np.array(places, dtype=np.int64).reshape(-1, 2).T
    found = np.full(len(places), np.nan, dtype=np.float32)
    there = keys >= 0
    found[there] = chosen.pool.embeddings.similarities(chosen.pool.vectors, rows[there], keys[there])
    scores = [None if np.isnan(score) else float(score) for score in found]
    return Opinions("retriever", scores[:num_relevant], scores[num_relevant:])


def _relevant_places(train: Collection) -> Iterator[tuple[int, int]]:
    """Row of the query and position of the document of each row of ``train.relevant()``; -1: not in the corpus."""
    relevant = train.relevant()
    position = positions_of(train.documents, [relevant["doc_id"]])
    row_of = {query_id: row for row, query_id in enumerate(train.queries["query_id"].to_pylist())}
    for query_id, doc_id in zip(relevant["query_id"].to_pylist(), relevant["doc_id"].to_pylist(), strict=True):
        yield row_of[query_id], position.get(doc_id, -1)


def write_groups(path: Path, train: Collection, negatives: pa.Table, ray_config: RayConfig, opinions: Opinions) -> int:
    """Write GROUPS, one a query that got a negative: positives (their grades), then negatives (0); how many.

    A column ``scores`` holds the opinions; whose they are stands in the file's metadata.

    Args:
        negatives: NEGATIVES. The texts are read from the disk to the disk.
    """
    relevant = train.relevant()
    wrong = negatives.filter(pc.equal(negatives["label"], 0))["query_id"].unique()
    given = [pa.array(scores, pa.float32()) for scores in (opinions.positives, opinions.negatives)]
    first = [relevant["query_id"], relevant["doc_id"], relevant["relevance"].cast(pa.float32()), given[0]]
    second = [*(negatives[name] for name in ("query_id", "doc_id", "label")), given[1]]
    tables = [pa.table(columns, schema=LABELLED) for columns in (first, second)]
    labelled = pa.concat_tables([table.filter(pc.is_in(table["query_id"], wrong)) for table in tables])
    # By query, in the order of the queries; a stable sort keeps positives before negatives and each in its order.
    order = pc.index_in(labelled["query_id"], train.queries["query_id"].combine_chunks()).to_numpy()
    labelled = labelled.take(pa.array(np.argsort(order, kind="stable")))
    schema = GROUPS.append(EXAMPLES.field("scores")).with_metadata({SCORES_BY: opinions.by})
    folder = path.parent / GROUPS_WORK
    parts = group_texts(labelled, train.queries, train.documents, folder, Finish(drop_copies=True), ray_config)
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for part in parts:
            table = pq.read_table(part, columns=schema.names).replace_schema_metadata(schema.metadata)
            writer.write_table(table)
            count += table.num_rows
    return count
