"""Training examples written in the layouts of FlagEmbedding, Tevatron and sentence-transformers, as JSON lines."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.example_source import ids_of
from ranker.data.writers import json_line
from ranker.registry import nearest
from ranker.schemas import EXAMPLES, require

log = logging.getLogger(__name__)

Example = dict[str, Any]


def write_examples(folder: Path, name: str, examples: Mapping[str, Iterable[pa.Table]], lossy: bool = False) -> None:
    """Write ``folder/SPLIT.jsonl``, a table at a time in memory; on an error nothing is left.

    ``flagembedding`` keeps query ids and scores, ``tevatron`` the ids of queries and documents, and both only know
    positives (label above 0) and negatives. ``sentence-transformers`` keeps labels and scores, and no ids, as its
    trainers take every further column for a text; without ids these are made of the texts when it is read.

    Args:
        name: of the layout. examples: split -> EXAMPLES, in tables.
        lossy: graded labels become 1 or 0, and what else the layout cannot say is left out.

    Raises:
        DataError: on an unknown layout, files that are there already, or, unless ``lossy``, counting what the layout
            cannot say.
    """
    if name not in _WRITERS:
        raise DataError(f"unknown layout {name!r}; {nearest(name, list(_WRITERS))}")
    targets = {split: folder / f"{split}.jsonl" for split in examples}
    _check_targets(folder, targets)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = {split: folder / f".{split}.jsonl.tmp" for split in examples}
    mistakes = Mistakes(str(folder))
    try:
        for split, tables in examples.items():
            _write_split(temporary[split], split, tables, _WRITERS[name], None if lossy else mistakes)
        mistakes.raise_if_any()
        for split, target in targets.items():
            temporary[split].replace(target)
    finally:
        for file in temporary.values():
            file.unlink(missing_ok=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def _check_targets(folder: Path, targets: Mapping[str, Path]) -> None:
    for split, target in targets.items():
        if target.parent != folder:
            raise DataError(f"split {split!r} cannot be the name of a file; rename it")
    there = [str(file) for file in sorted(folder.glob("*.jsonl"))] if folder.is_dir() else []
    if there:
        raise DataError(f"{', '.join(there)}: there already; name another folder, or remove them")


def _write_split(
    path: Path,
    split: str,
    tables: Iterable[pa.Table],
    writer: "Writer",
    mistakes: Mistakes | None,
) -> None:
    left_out = 0
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for table in tables:
            for row in require(table, EXAMPLES, f"examples {split}").select(EXAMPLES.names).to_pylist():
                kept, problems = _without_blank(row)
                record, others = writer(kept) if kept["documents"] else (None, [])
                for problem in problems + others:
                    if mistakes is not None:
                        mistakes.add(f"{split}, query {row['query_id']!r}", f"{problem}; or allow it with lossy")
                if record is None:
                    left_out += 1
                else:
                    stream.write(json_line(record))
    if left_out and mistakes is None:
        log.warning("%s: %d queries are left out, which this layout cannot say", split, left_out)


def _without_blank(row: Example) -> tuple[Example, list[str]]:
    """The row without documents that have no words, which no layout knows, and what is wrong with it otherwise."""
    filled = [i for i, text in enumerate(row["documents"]) if text and not text.isspace()]
    left_out = len(row["documents"]) - len(filled)
    if not left_out:
        return row, []
    lists = [name for name in ("documents", "labels", "doc_ids", "scores") if row[name] is not None]
    kept = {**row, **{name: [row[name][i] for i in filled] for name in lists}}
    return kept, [f"has {left_out} documents without words, which no layout knows; give them words or remove them"]


def _flagembedding(row: Example) -> tuple[Example | None, list[str]]:
    positives, negatives, problems = _sides(row)
    documents, scores = row["documents"], row["scores"]
    record = {
        "query_id": row["query_id"],
        "query": row["query"],
        "pos": [documents[i] for i in positives],
        "neg": [documents[i] for i in negatives],
    }
    if scores is not None:
        record["pos_scores"] = [_number(scores[i]) for i in positives]
        record["neg_scores"] = [_number(scores[i]) for i in negatives]
    return (record if positives else None), problems


def _tevatron(row: Example) -> tuple[Example | None, list[str]]:
    positives, negatives, problems = _sides(row)
    if row["scores"] is not None:
        problems.append("has scores of a teacher, for which Tevatron has no place; write flagembedding")
    passages = [
        {"docid": doc_id, "title": "", "text": text} for doc_id, text in zip(ids_of(row), row["documents"], strict=True)
    ]
    record = {
        "query_id": row["query_id"],
        "query": row["query"],
        "positive_passages": [passages[i] for i in positives],
        "negative_passages": [passages[i] for i in negatives],
    }
    return (record if positives else None), problems


def _sentence_transformers(row: Example) -> tuple[Example | None, list[str]]:
    record = {"query": row["query"], "documents": row["documents"], "labels": [_number(x) for x in row["labels"]]}
    if row["scores"] is not None:
        record["scores"] = [_number(x) for x in row["scores"]]
    return record, []


def _sides(row: Example) -> tuple[list[int], list[int], list[str]]:
    """Places of the positives, those of the negatives, and what a layout that knows only these cannot say."""
    labels = row["labels"]
    positives = [i for i, label in enumerate(labels) if label > 0]
    negatives = [i for i, label in enumerate(labels) if not label > 0]
    problems = []
    if any(label not in (0, 1) for label in labels):
        some = shown([_number(label) for label in labels])
        problems.append(f"has the labels {some}, and the layout knows only 1 and 0; write sentence-transformers")
    if not positives:
        problems.append("has no positive, and the layout needs one; write sentence-transformers, or remove it")
    return positives, negatives, problems


def _number(value: float | None) -> float | None:
    """The shortest number that is the same in 32 bits: 0.1, not 0.10000000149011612."""
    if value is None:
        return None
    if not math.isfinite(value):
        raise DataError(f"examples hold the number {value}, which JSON cannot say; remove it")
    return float(str(np.float32(value)))


Writer = Callable[[Example], tuple[Example | None, list[str]]]
_WRITERS: Mapping[str, Writer] = {
    "flagembedding": _flagembedding,
    "tevatron": _tevatron,
    "sentence-transformers": _sentence_transformers,
}
