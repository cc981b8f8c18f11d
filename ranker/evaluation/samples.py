"""Test data in the shapes that people have it, as one collection with its candidates."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ranker.schemas import CORPUS, QRELS, QUERIES, RUN, Collection

SHAPES = (
    '{"query", "documents", "labels"}, {"query", "positive", "negative"}, {"query", "positive", "documents"} or '
    "(query, positives, negatives)"
)


def samples_to_collection(samples: Iterable[Mapping[str, Any] | Sequence[Any]]) -> Collection:
    """A collection whose ``run`` holds each sample's documents as its candidates, in the order given.

    The shapes are those of sentence-transformers' ``CrossEncoderRerankingEvaluator``: ``positive`` (or
    ``positives``) with ``negative`` (or ``negatives``), ``positive`` with ``documents`` in the retriever's order, and
    besides them ``documents`` with graded ``labels``. Positives that ``documents`` lacks count as missed, which that
    evaluator does only with ``always_rerank_positives=False``.

    Raises:
        ValueError: naming every sample of another shape.
    """
    columns: dict[str, list[Any]] = {"query": [], "documents": [], "labels": []}
    problems: list[str] = []
    for number, sample in enumerate(samples):
        try:
            query, documents, labels = _read(sample)
        except ValueError as error:
            problems.append(f"sample {number}: {error}")
            continue
        for name, value in zip(columns, (query, documents, labels), strict=True):
            columns[name].append(value)
    if problems or not columns["query"]:
        shown = problems[:10] or ["no samples"]
        raise ValueError("\n  ".join([f"test data: {len(problems)} samples of an unknown shape; use {SHAPES}", *shown]))
    return _tables(columns["query"], columns["documents"], columns["labels"])


def _read(sample: Mapping[str, Any] | Sequence[Any]) -> tuple[str, list[str], dict[str, int]]:
    """(query, candidates in order, document -> relevance); judged documents need not be candidates."""
    if not isinstance(sample, Mapping):
        if isinstance(sample, str) or len(sample) != 3:
            raise ValueError(f"{type(sample).__name__} of {len(sample)}")
        sample = dict(zip(("query", "positive", "negative"), sample, strict=True))
    if not isinstance(sample.get("query"), str):
        raise ValueError(f"no 'query' text among {sorted(sample)}")
    if "documents" in sample and "labels" in sample:
        return _labelled(sample)
    positives = _texts(sample, "positive")
    shown = _texts(sample, "documents") if "documents" in sample else [*positives, *_texts(sample, "negative")]
    return sample["query"], shown, dict.fromkeys(positives, 1)


def _labelled(sample: Mapping[str, Any]) -> tuple[str, list[str], dict[str, int]]:
    documents, labels = _texts(sample, "documents"), list(sample["labels"])
    if len(documents) != len(labels):
        raise ValueError(f"{len(documents)} documents but {len(labels)} labels")
    if any(label != int(label) for label in labels):
        raise ValueError(f"labels must be whole numbers (grades), not {labels}")
    grades: dict[str, int] = {}
    for document, label in zip(documents, labels, strict=True):
        grades[document] = max(int(label), grades.get(document, 0))
    return sample["query"], documents, grades


def _texts(sample: Mapping[str, Any], name: str) -> list[str]:
    value = sample.get(name, sample.get(f"{name}s"))
    if value is None:
        raise ValueError(f"no {name!r} among {sorted(sample)}")
    texts = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name!r} must be texts")
    return texts


def _tables(queries: list[str], documents: list[list[str]], labels: list[dict[str, int]]) -> Collection:
    """Equal texts are one document, so that nobody ranks against a copy of the answer."""
    doc_ids = {text: f"d{number}" for number, text in enumerate(dict.fromkeys(_all_texts(documents, labels)))}
    qrels = [
        (f"q{number}", doc_ids[text], grade) for number, grades in enumerate(labels) for text, grade in grades.items()
    ]
    run = [
        (f"q{number}", doc_ids[text], float(-rank), rank)
        for number, candidates in enumerate(documents)
        for rank, text in enumerate(dict.fromkeys(candidates), start=1)
    ]
    query_ids = [f"q{number}" for number in range(len(queries))]
    corpus = pa.table([list(doc_ids.values()), [""] * len(doc_ids), list(doc_ids)], schema=CORPUS)
    return Collection(
        "samples",
        "test",
        corpus,
        pa.table([query_ids, queries], schema=QUERIES),
        _rows(qrels, QRELS),
        _rows(run, RUN),
    )


def _all_texts(documents: list[list[str]], labels: list[dict[str, int]]) -> Iterable[str]:
    for candidates, grades in zip(documents, labels, strict=True):
        yield from candidates
        yield from grades


def _rows(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[] for _ in schema], schema=schema)
