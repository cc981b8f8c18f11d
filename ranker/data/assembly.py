"""Groups put together: labelled ids and their texts as EXAMPLES. A pure function of tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ranker.schemas import EXAMPLES


@dataclass(frozen=True)
class Finish:
    """What becomes of a group when its texts are there.

    Args:
        drop_copies: a document with the text of one before it is left out.
        negatives_a_positive: documents of label 0 that stay for each one above it, the first ones. None: all.
        both_sides: a group without a label above 0, or without one of 0, is left out.
    """

    drop_copies: bool = False
    negatives_a_positive: int | None = None
    both_sides: bool = False


AS_THEY_ARE = Finish()


def assemble(groups: pa.Table, labelled: pa.Table, texts: pa.Table, finish: Finish) -> pa.Table:
    """EXAMPLES of some groups.

    Args:
        groups: query_id, query, start and end of the group among the rows of ``labelled``.
        texts: (row of ``labelled``, text), in any order; rows without one are left out.
    """
    text_of = dict(zip(texts["row"].to_pylist(), texts["text"].to_pylist(), strict=True))
    low = groups["start"][0].as_py() if groups.num_rows else 0
    high = groups["end"][-1].as_py() if groups.num_rows else 0
    part = labelled.slice(low, high - low)
    labels, doc_ids, scores = (part[name].to_pylist() for name in ("label", "doc_id", "score"))
    columns: list[list[Any]] = [[] for _ in EXAMPLES]
    for query_id, query, start, end in zip(*(column.to_pylist() for column in groups.columns), strict=True):
        found = [
            (text_of[row], labels[row - low], doc_ids[row - low], scores[row - low])
            for row in range(start, end)
            if row in text_of
        ]
        lists = _lists(_kept(found, finish), finish)
        if lists and query is not None:
            for column, value in zip(columns, (query_id, query, *lists), strict=True):
                column.append(value)
    return pa.table(columns, schema=EXAMPLES)


def _kept(found: Sequence[tuple[Any, ...]], finish: Finish) -> list[tuple[Any, ...]]:
    """The (text, label, doc_id, score) of a group that stay."""
    if finish.drop_copies:
        first: dict[str, tuple[Any, ...]] = {}
        for document in found:
            first.setdefault(document[0], document)
        found = list(first.values())
    positives = [document for document in found if document[1] > 0]
    negatives = [document for document in found if document[1] <= 0]
    if finish.negatives_a_positive is None:
        return list(found)
    return [*positives, *negatives[: finish.negatives_a_positive * len(positives)]]


def _lists(kept: list[tuple[Any, ...]], finish: Finish) -> tuple[Any, ...]:
    """documents, labels, doc_ids and scores of a group; empty where it is left out."""
    if not kept:
        return ()
    documents, labels, doc_ids, scores = (list(column) for column in zip(*kept, strict=True))
    if finish.both_sides and (max(labels) <= 0 or min(labels) > 0):
        return ()
    return documents, labels, doc_ids, scores if any(score is not None for score in scores) else None
