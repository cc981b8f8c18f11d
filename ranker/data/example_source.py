"""Training examples seen as a collection: their texts are the corpus, their labels the judgements."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ranker.data.errors import SHOWN, Mistakes, shown
from ranker.data.ir_sets import ranked
from ranker.data.pairs import codes, together
from ranker.data.pieces import table_of
from ranker.data.source import ExampleSource, Source
from ranker.schemas import CORPUS, EXAMPLES, QRELS, QUERIES, RUN, read_blocks

BLOCK_GROUPS = 1024
# Rows of blocks that wait until repeated ones among them are put together.
WAITING_ROWS = 500_000
# Judgements are int32.
LARGEST_GRADE = 2**31 - 1

# The columns of EXAMPLES that are read for each table, and what they become before repeated rows are one.
_QUERIES = pa.schema([EXAMPLES.field(name) for name in ("query_id", "query")])
_ASKED = pa.schema([*_QUERIES, ("split", pa.int32())])
_JUDGED_LISTS = pa.schema([EXAMPLES.field(name) for name in ("query_id", "documents", "doc_ids", "labels")])
_SCORED_LISTS = pa.schema([EXAMPLES.field(name) for name in ("query_id", "documents", "doc_ids", "scores")])
_SCORED = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("score", pa.float32())])


def text_id(text: str) -> str:
    """The doc_id of a document that has none: the same text always gets the same one (BLAKE2b, 128 bits, hex)."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def examples_as_source(source: ExampleSource, parts: Mapping[str, Sequence[Path]]) -> Source:
    """A source over EXAMPLES that lie in Parquet parts, by split.

    A document of a query that has no label above 0 is judged 0; a teacher's scores become candidates (RUN).
    """
    pieces = [DocumentsOfExamples(part, split) for split in parts for part in parts[split]]
    return Source(
        name=source.name,
        format=source.format,
        corpus=pieces,
        queries=lambda mistakes: _queries(parts, mistakes),
        qrels=lambda mistakes: {split: _qrels(split, files, mistakes) for split, files in parts.items()},
        run=lambda mistakes: _run(parts),
        corpus_name="the examples",
        queries_name="the examples",
        same_id_same_text=True,
    )


@dataclass(frozen=True)
class DocumentsOfExamples:
    """The documents of one Parquet part of EXAMPLES, each once.

    Args:
        split: that the part belongs to, for error messages.
    """

    part: Path
    split: str

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
                        mistakes.add(
                            f"split {self.split}",
                            f"document {doc_id!r} of query {row['query_id']!r} ({shown(row['query'])}) had another "
                            f"text before: {shown(text)}; give each text an id of its own, or leave the ids out",
                        )
            yield table_of(rows, CORPUS)

    def places(self, doc_ids: set[str]) -> Iterator[tuple[str, str]]:
        """None: documents that occur twice are the same."""
        return iter(())


def ids_of(row: Mapping[str, Any]) -> list[str]:
    """doc_ids of a row of EXAMPLES, made of the texts where it has none."""
    given = row.get("doc_ids") or [None] * len(row["documents"])
    return [doc_id or text_id(text) for doc_id, text in zip(given, row["documents"], strict=True)]


def _queries(parts: Mapping[str, Sequence[Path]], mistakes: Mistakes) -> pa.Table:
    def blocks() -> Iterator[pa.Table]:
        for number, part in ((number, part) for number, files in enumerate(parts.values()) for part in files):
            for block in read_blocks(part, _QUERIES, BLOCK_GROUPS):
                yield block.append_column("split", pa.array(np.full(block.num_rows, number, dtype=np.int32)))

    texts = _gathered(blocks(), _ASKED, "min")
    _, first = np.unique(codes(texts["query_id"])[0], return_index=True)
    if len(first) < texts.num_rows:
        _name_changed(texts, list(parts), mistakes)
    return pa.table(texts.take(pa.array(first)).columns[:2], schema=QUERIES)


def _name_changed(texts: pa.Table, splits: Sequence[str], mistakes: Mistakes) -> None:
    """Every further text of a query is a mistake."""
    first: dict[str, tuple[str, str]] = {}
    for query_id, text, number in zip(*(column.to_pylist() for column in texts.columns), strict=True):
        split = splits[number]
        before, where = first.setdefault(query_id, (text, split))
        if before != text:
            problem = f"query {query_id!r} is {shown(text)}, and {shown(before)} in split {where}"
            mistakes.add(f"split {split}", f"{problem}; give each query an id of its own, or leave the ids out")


def _qrels(split: str, parts: Sequence[Path], mistakes: Mistakes) -> pa.Table:
    def blocks() -> Iterator[pa.Table]:
        for part in parts:
            for block in read_blocks(part, _JUDGED_LISTS, BLOCK_GROUPS):
                flat = exploded(block, "labels")
                grades = flat["labels"].to_numpy()
                whole = (grades == np.floor(grades)) & (np.abs(grades) <= LARGEST_GRADE)
                if not whole.all():
                    _name_fractions(split, flat.filter(pa.array(~whole)), mistakes)
                    flat = flat.filter(pa.array(whole))
                yield flat.set_column(2, QRELS.field("relevance"), flat["labels"].cast(pa.int32()))

    return _gathered(blocks(), QRELS, "max")


def _name_fractions(split: str, rows: pa.Table, mistakes: Mistakes) -> None:
    """Every one of the rows is a mistake; those that would not be shown are only counted."""
    for row in rows.slice(0, SHOWN).to_pylist():
        mistakes.add(
            f"split {split}",
            f"label {row['labels']} of document {row['doc_id']!r} of query {row['query_id']!r} is no whole number, as "
            "a judgement must be; round it, or train on these examples as they are (train.groups): they cannot be "
            "searched and measured",
        )
    mistakes.add_all([], max(0, rows.num_rows - SHOWN))


def _run(parts: Mapping[str, Sequence[Path]]) -> pa.Table | None:
    def blocks() -> Iterator[pa.Table]:
        for part in (part for files in parts.values() for part in files):
            for block in read_blocks(part, _SCORED_LISTS, BLOCK_GROUPS):
                flat = exploded(block, "scores").rename_columns(["query_id", "doc_id", "score"])
                yield flat.filter(flat["score"].is_valid())

    scores = _gathered(blocks(), _SCORED, "last")
    if not scores.num_rows:
        return None
    unranked = pa.array(np.zeros(scores.num_rows, dtype=np.int32))
    return ranked(pa.table([*scores.columns[:2], scores["score"].cast(pa.float64()), unranked], schema=RUN))


def exploded(block: pa.Table, name: str) -> pa.Table:
    """(query_id, doc_id, a value of the list column ``name``), a row a document; null where a row has no such list.

    A document without an id gets one made of its text, as :func:`ids_of` makes it.
    """
    documents = block["documents"].combine_chunks()
    rows = pc.list_parent_indices(documents)
    doc_ids = _beside(documents, block["doc_ids"].combine_chunks())
    nameless = pc.or_(pc.is_null(doc_ids), pc.fill_null(pc.equal(doc_ids, ""), False))
    if nameless.true_count:
        made = [text_id(text) for text in pc.list_flatten(documents).filter(nameless).to_pylist()]
        doc_ids = pc.replace_with_mask(doc_ids, nameless, pa.array(made, pa.string()))
    values = _beside(documents, block[name].combine_chunks())
    return pa.table({"query_id": block["query_id"].take(rows), "doc_id": doc_ids, name: values})


def _beside(documents: pa.ListArray, lists: pa.ListArray) -> pa.Array:
    """The values of ``lists``, one a document; nulls for the rows where there is no list, or an empty one."""
    values = pc.list_flatten(lists)
    sizes, given = _sizes(documents), _sizes(lists)
    if unequal := np.flatnonzero((given != sizes) & (given > 0)).tolist():
        row = unequal[0]
        raise ValueError(f"example {row} of its block has {given[row]} values beside {sizes[row]} documents")
    if len(values) == sizes.sum():
        return values
    mask = pa.array(np.repeat(given > 0, sizes))
    return pc.replace_with_mask(pa.nulls(len(mask), values.type), mask, values)


def _sizes(lists: pa.ListArray) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False), dtype=np.int64)


def _gathered(blocks: Iterable[pa.Table], schema: pa.Schema, how: str) -> pa.Table:
    """All blocks with repeated rows as one (see :func:`together`), which is done before many pile up."""
    whole, waiting, rows = schema.empty_table(), list[pa.Table](), 0
    for block in blocks:
        waiting.append(block.cast(schema))
        rows += block.num_rows
        if rows > max(WAITING_ROWS, whole.num_rows):
            whole, waiting, rows = together(pa.concat_tables([whole, *waiting]), how), [], 0
    return together(pa.concat_tables([whole, *waiting]), how)
