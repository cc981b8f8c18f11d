"""A source looked through without being refused: what is in it, how long its texts are, and what is wrong with it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ranker.data.errors import SHOWN, DataError, Mistakes
from ranker.data.inspection.copies import NAMED, Repeats, Some, copied_queries, some_of
from ranker.data.inspection.document_counts import DocumentCounts, scan
from ranker.data.inspection.example_counts import ExampleCounts, count_examples
from ranker.data.inspection.judged import (
    CandidateCounts,
    SplitCounts,
    TripleCounts,
    all_relevant_ids,
    count_candidates,
    count_splits,
    count_triples,
    judged_ids,
    missing_documents,
    unjudged_queries,
)
from ranker.data.inspection.lengths import Lengths, document_lengths, query_lengths
from ranker.data.inspection.overlap import Shared, overlaps
from ranker.data.parts import PieceReport, publish_parts, repeated_ids
from ranker.data.source import ExampleSource, Source
from ranker.data.splits import Splits
from ranker.data.store import write_pieces
from ranker.pretrained import BUNDLED
from ranker.schemas import CORPUS, EXAMPLES, QUERIES, SPLITS, SchemaError, StoredCorpus

SAMPLE = 20_000

Table = TypeVar("Table")


@dataclass(frozen=True)
class QueryCounts:
    """The queries of all splits: with different ids, with an empty text, without a judgement in any split."""

    queries: int
    empty: Some
    unjudged: Some


@dataclass(frozen=True)
class Found:
    """The mistakes for which a source is refused when it is read to be used: all counted, the first ten said."""

    count: int
    some: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What is in a source.

    Args:
        pieces: that are read in parallel. bytes: of them; None: not known before they are read.
        tokenizer: whose tokens the lengths are. query_lengths, document_lengths: None where there is no text.
        leakage: ``{"train/test": ...}`` for every pair of splits. candidates, examples: None where there are none.
    """

    name: str
    format: str
    pieces: int
    bytes: int | None
    documents: DocumentCounts
    queries: QueryCounts
    splits: dict[str, SplitCounts]
    tokenizer: str
    document_lengths: Lengths | None
    query_lengths: Lengths | None
    repeats: Repeats
    candidates: CandidateCounts | None
    triples: dict[str, TripleCounts]
    leakage: dict[str, Shared]
    examples: dict[str, ExampleCounts] | None
    mistakes: Found

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON says it."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def inspect_source(
    source: Source | ExampleSource, work: Path, *, sample: int = SAMPLE, seed: int = 0, allow_missing: bool = False
) -> Inspection:
    """Read all of a source and count; memory grows with what hangs on its queries, not with its documents.

    Args:
        work: an empty folder that takes the documents as Parquet; the caller removes it.
        sample: documents, and queries, of which the lengths are measured. seed: of that sample.
        allow_missing: judged ids that are not there are no mistake.

    Raises:
        DataError: where neither a document nor a query can be read at all, saying why.
    """
    mistakes = Mistakes(source.name)
    pieces, size = _size(source)
    examples = None
    if isinstance(source, ExampleSource):
        source, examples = _as_source(source, work, mistakes)
    corpus, doc_ids = _documents(source, work, mistakes)
    data, query_ids, judgements = _beside(source, corpus, mistakes, judged=examples is None)
    if not corpus.num_rows and not data.queries.num_rows:
        mistakes.raise_if_any()
    missing = missing_documents(data)
    splits, judged = count_splits(data, missing), judged_ids(data)
    if not allow_missing:
        _name_missing(source, splits, mistakes)
    scanned = scan(corpus, all_relevant_ids(data), work / "scan")
    known = len(judged) - int(pc.sum(pc.is_in(judged, missing)).as_py() or 0)
    texts = data.queries["text"]
    return Inspection(
        source.name,
        source.format,
        pieces,
        size,
        DocumentCounts(scanned.documents, scanned.with_title, scanned.empty, scanned.documents - known),
        QueryCounts(
            data.queries.num_rows,
            some_of(data.queries.filter(pc.equal(pc.utf8_trim_whitespace(texts), ""))["query_id"]),
            unjudged_queries(data),
        ),
        splits,
        BUNDLED,
        document_lengths(corpus, sample, seed),
        query_lengths(data.queries, sample, seed),
        Repeats(doc_ids, query_ids, judgements, scanned.copies, copied_queries(data.queries)),
        count_candidates(data, missing),
        count_triples(data.triples, data.queries, missing),
        overlaps(data, scanned.relevant),
        examples,
        Found(mistakes.count, tuple(mistakes.found)),
    )


def _size(source: Source | ExampleSource) -> tuple[int, int | None]:
    groups = source.examples.values() if isinstance(source, ExampleSource) else [source.corpus]
    pieces = [piece for group in groups for piece in group]
    return len(pieces), sum(piece.num_bytes for piece in pieces) or None


def _as_source(source: ExampleSource, work: Path, mistakes: Mistakes) -> tuple[Source, dict[str, ExampleCounts]]:
    from ranker.data.example_source import examples_as_source

    parts = {
        split: _parts(write_pieces(pieces, work / "examples" / split, EXAMPLES, mistakes))
        for split, pieces in source.examples.items()
    }
    return examples_as_source(source, parts), {split: count_examples(files) for split, files in parts.items()}


def _parts(reports: list[PieceReport]) -> list[Path]:
    return [part for report in reports for part in report.parts]


def _documents(source: Source, work: Path, mistakes: Mistakes) -> tuple[StoredCorpus, Some]:
    """Each document once, and which ids occur again."""
    before = mistakes.count
    parts = _parts(write_pieces(source.corpus, work / "pieces", CORPUS, mistakes, hashed=True))
    dropped: dict[int, list[NDArray[np.int64]]] = {}
    count, repeated = 0, list[str]()
    for part, rows, ids in repeated_ids(parts):
        dropped.setdefault(part, []).append(rows)
        count += len(ids)
        repeated += ids[: SHOWN - len(repeated)]
    is_mistake = count and not source.same_id_same_text
    if is_mistake:
        _name_repeated(source, set(repeated), count, mistakes)
    publish_parts(parts, work / "corpus", CORPUS, {part: np.concatenate(rows) for part, rows in dropped.items()})
    corpus = StoredCorpus(work / "corpus")
    if source.corpus and not corpus.num_rows and mistakes.count == before:
        mistakes.add(source.corpus_name, "holds no document; write one a line, or name another file")
    return corpus, Some(count, tuple(repeated[:NAMED])) if is_mistake else Some()


def _name_repeated(source: Source, ids: set[str], count: int, mistakes: Mistakes) -> None:
    """The first places of ids that were used before."""
    first: dict[str, str] = {}
    named = 0
    to_name = min(count, SHOWN - len(mistakes.found))
    places = (found for piece in source.corpus for found in piece.places(ids))
    for doc_id, place in places if to_name else ():
        if doc_id in first:
            mistakes.add(place, f"id {doc_id!r} was already used at {first[doc_id]}; ids must differ")
            named += 1
        if named == to_name:
            break
        first.setdefault(doc_id, place)
    mistakes.count += count - named


def _beside(source: Source, corpus: StoredCorpus, mistakes: Mistakes, *, judged: bool) -> tuple[Splits, Some, Some]:
    """The data set with every query and judgement once; query ids and judgements that occur again.

    Args:
        judged: labels must be judgements. Of training examples they need not: they are counted apart.
    """
    labels = mistakes if judged else Mistakes(source.name)
    queries = _read(source.queries, source.queries_name, mistakes, QUERIES.empty_table())
    qrels = _read(source.qrels, "the judgements", labels, dict[str, pa.Table]())
    run = _read(source.run, "the candidates", mistakes, None)
    triples = _read(source.triples, "the triples", mistakes, dict[str, pa.Table]())
    queries = _whole(_filled(queries, "text"), source.queries_name, mistakes)
    queries, again = _once(queries, ["query_id"])
    if again.count:
        some = ", ".join(map(repr, again.some))
        mistakes.add(source.queries_name, f"{again.count} ids were used before: {some}; ids must differ")
    qrels = {split: _whole(table, f"qrels {split}", mistakes) for split, table in qrels.items()}
    named = [*(split for split in SPLITS if split in qrels), *(split for split in qrels if split not in SPLITS)]
    once = {split: _once(qrels[split], ["query_id", "doc_id"]) for split in named}
    repeated = [f"{split}: {pair}" for split, (_, found) in once.items() for pair in found.some]
    count = sum(found.count for _, found in once.values())
    qrels = {split: table for split, (table, _) in once.items()}
    data = Splits(source.name, corpus, queries, qrels, run, triples, source.relevance_levels)
    return data, again, Some(count, tuple(repeated[:NAMED]))


def _read(function: Callable[[Mistakes], Table], place: str, mistakes: Mistakes, nothing: Table) -> Table:
    """What the function gives; nothing, and a mistake, where it gives up."""
    try:
        return function(mistakes)
    except DataError as error:  # it names its place
        if str(error) not in mistakes.found:  # of a data set that cannot be fetched, every table says the same
            mistakes.add("", str(error))
    except (SchemaError, pa.ArrowInvalid) as error:
        mistakes.add(place, str(error))
    return nothing


def _filled(table: pa.Table, column: str) -> pa.Table:
    return table.set_column(table.schema.get_field_index(column), column, table[column].fill_null(""))


def _whole(table: pa.Table, place: str, mistakes: Mistakes) -> pa.Table:
    """The rows without a null; the others are one mistake."""
    whole = table.drop_null()
    if lost := table.num_rows - whole.num_rows:
        mistakes.add(place, f"null in {lost} of {table.num_rows} rows; fill or remove them")
    return whole


def _once(table: pa.Table, key: list[str]) -> tuple[pa.Table, Some]:
    """The first row of each key, and the keys of the other rows."""
    repeated = table.select(key).to_pandas().duplicated().to_numpy()
    if not repeated.any():
        return table, Some()
    again = table.filter(pa.array(repeated)).select(key)
    some = tuple(" ".join(row.values()) for row in again.slice(0, NAMED).to_pylist())
    return table.filter(pa.array(~repeated)), Some(again.num_rows, some)


def _name_missing(source: Source, splits: Mapping[str, SplitCounts], mistakes: Mistakes) -> None:
    remedy = "add them, or go on without with --allow-missing (data.options.allow_missing=true)"
    for split, counts in splits.items():
        for noun, lost, file in (
            ("query_id", counts.missing_queries, source.queries_name),
            ("doc_id", counts.missing_documents, source.corpus_name),
        ):
            if lost.count:
                some = ", ".join(map(repr, lost.some)) + (", ..." if lost.count > len(lost.some) else "")
                ids = f"{lost.count} judged {noun}s are" if lost.count > 1 else f"1 judged {noun} is"
                mistakes.add(f"qrels {split}", f"{ids} not in {file}: {some}; {remedy}")
