"""What was chosen as tables: which document is which, and GROUPS with their texts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.config import RayConfig
from ranker.data.assembly import Finish
from ranker.data.grouping import LABELLED, group_texts
from ranker.data.labels import ids_at
from ranker.schemas import GROUPS, Collection
from ranker.training.choosing import Chosen

# Beside the groups while they are written: an interrupted call goes on.
GROUPS_WORK = "groups"
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


def write_groups(
    path: Path,
    train: Collection,
    negatives: pa.Table,
    ray_config: RayConfig,
    positive_logits: Sequence[float | None] | None = None,
) -> int:
    """Write GROUPS, one a query that got a negative: positives (their grades), then negatives (0); how many.

    With logits of a teacher a column ``scores`` holds those of every document of a group.

    Args:
        negatives: NEGATIVES. The texts are read from the disk to the disk.
        positive_logits: of each row of ``train.relevant()``. None: there was no teacher.
    """
    relevant = train.relevant()
    logits = pa.array(positive_logits or [None] * relevant.num_rows, pa.float32())
    wrong = negatives.filter(pc.equal(negatives["label"], 0))["query_id"].unique()
    first = [relevant["query_id"], relevant["doc_id"], relevant["relevance"].cast(pa.float32()), logits]
    second = [negatives[name] for name in ("query_id", "doc_id", "label", "teacher")]
    tables = [pa.table(columns, schema=LABELLED) for columns in (first, second)]
    labelled = pa.concat_tables([table.filter(pc.is_in(table["query_id"], wrong)) for table in tables])
    # By query, in the order of the queries; a stable sort keeps positives before negatives and each in its order.
    order = pc.index_in(labelled["query_id"], train.queries["query_id"].combine_chunks()).to_numpy()
    labelled = labelled.take(pa.array(np.argsort(order, kind="stable")))
    schema = GROUPS if positive_logits is None else GROUPS.append(pa.field("scores", pa.list_(pa.float32())))
    folder = path.parent / GROUPS_WORK
    parts = group_texts(labelled, train.queries, train.documents, folder, Finish(drop_copies=True), ray_config)
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for part in parts:
            table = pq.read_table(part, columns=schema.names)
            writer.write_table(table)
            count += table.num_rows
    return count
