"""Training examples seen as a collection: their texts are the corpus, their labels the judgements."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ranker.data.errors import Mistakes, shown
from ranker.data.pieces import table_of
from ranker.data.source import ExampleSource, Source
from ranker.schemas import CORPUS, EXAMPLES, QRELS, QUERIES, RUN, read_blocks

BLOCK_GROUPS = 1024


def text_id(text: str) -> str:
    """The doc_id of a document that has none: the same text always gets the same one (BLAKE2b, 128 bits, hex)."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def examples_as_source(source: ExampleSource, parts: Mapping[str, Sequence[Path]]) -> Source:
    """A source over EXAMPLES that lie in Parquet parts, by split.

    A document of a query that has no label above 0 is judged 0; a teacher's scores become candidates (RUN).
    """
    pieces = [DocumentsOfExamples(part) for split in parts for part in parts[split]]
    return Source(
        name=source.name,
        format=source.format,
        corpus=pieces,
        queries=lambda mistakes: _queries(parts, mistakes),
        qrels=lambda mistakes: {split: _qrels(files, mistakes) for split, files in parts.items()},
        run=lambda mistakes: _run(parts),
        corpus_name="the examples",
        queries_name="the examples",
        same_id_same_text=True,
    )


@dataclass(frozen=True)
class DocumentsOfExamples:
    """The documents of one Parquet part of EXAMPLES, each once."""

    part: Path

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        return self.part.stat().st_size

    def tables(self, mistakes: Mistakes) -> Iterator[pa.Table]:
        """CORPUS; a document with an id that stood for another text in this part is a mistake."""
        known: dict[str, int] = {}
        for block in read_blocks(self.part, EXAMPLES, BLOCK_GROUPS):
            rows = []
            for row in block.to_pylist():
                for doc_id, text in zip(ids_of(row), row["documents"], strict=True):
                    if doc_id not in known:
                        known[doc_id] = hash(text)
                        rows.append((doc_id, "", text))
                    elif known[doc_id] != hash(text):
                        problem = (
                            f"document {doc_id!r} of query {row['query']!r} had another text before: {shown(text)}"
                        )
                        mistakes.add("", f"{problem}; ids must differ")
            yield table_of(rows, CORPUS)

    def places(self, doc_ids: set[str]) -> Iterator[tuple[str, str]]:
        """None: documents that occur twice are the same."""
        return iter(())


def ids_of(row: Mapping[str, Any]) -> list[str]:
    """doc_ids of a row of EXAMPLES, made of the texts where it has none."""
    given = row.get("doc_ids") or [None] * len(row["documents"])
    return [doc_id or text_id(text) for doc_id, text in zip(given, row["documents"], strict=True)]


def _rows(parts: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for part in parts:
        for block in read_blocks(part, EXAMPLES, BLOCK_GROUPS):
            yield from block.to_pylist()


def _queries(parts: Mapping[str, Sequence[Path]], mistakes: Mistakes) -> pa.Table:
    texts: dict[str, str] = {}
    for files in parts.values():
        for part in files:
            table = pq.read_table(part, columns=["query_id", "query"])
            for query_id, text in zip(table["query_id"].to_pylist(), table["query"].to_pylist(), strict=True):
                if texts.setdefault(query_id, text) != text:
                    problem = f"query {query_id!r} is {shown(texts[query_id])} and {shown(text)}"
                    mistakes.add("", f"{problem}; ids must differ")
    return pa.table([list(texts), list(texts.values())], schema=QUERIES)


def _qrels(parts: Sequence[Path], mistakes: Mistakes) -> pa.Table:
    judged: dict[tuple[str, str], int] = {}
    for row in _rows(parts):
        for doc_id, label in zip(ids_of(row), row["labels"], strict=True):
            if not float(label).is_integer():
                mistakes.add(
                    "",
                    f"label {label} of query {row['query']!r} is no whole number, as a judgement must be; such "
                    "examples can be trained on (train.groups), not searched and measured",
                )
                continue
            key = (row["query_id"], doc_id)
            judged[key] = max(int(label), judged.get(key, int(label)))
    columns = [[q for q, _ in judged], [d for _, d in judged], list(judged.values())]
    return pa.table(columns, schema=QRELS)


def _run(parts: Mapping[str, Sequence[Path]]) -> pa.Table | None:
    scores: dict[str, dict[str, float]] = {}
    for files in parts.values():
        for row in _rows(files):
            if row["scores"]:
                known = scores.setdefault(row["query_id"], {})
                known.update({d: s for d, s in zip(ids_of(row), row["scores"], strict=True) if s is not None})
    if not any(scores.values()):
        return None
    ranked = [
        (query_id, doc_id, score, rank)
        for query_id, known in scores.items()
        for rank, (doc_id, score) in enumerate(sorted(known.items(), key=lambda item: -item[1]), 1)
    ]
    return table_of(ranked, RUN)
