"""A source read into the stored form of a collection: every check of a data set, in memory that does not grow with it.

Pieces become Parquet parts in parallel (:mod:`ranker.data.spread`); then ids, judgements and sample are checked on the
columns that they need. An interrupted call goes on with the pieces that are missing.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.config import RayConfig
from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.parts import (
    PieceReport,
    forget_failed,
    is_done,
    piece_folder,
    publish_parts,
    read_report,
    remove_pieces,
    repeated_ids,
    write_piece,
)
from ranker.data.pieces import Piece, gathered
from ranker.data.sample import sample_documents, sample_judgements
from ranker.data.source import ExampleSource, Source
from ranker.data.splits import Splits
from ranker.data.spread import spread
from ranker.schemas import CORPUS, EXAMPLES, StoredCorpus, TableCorpus

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reading:
    """How a source is read, whatever its format.

    Args:
        max_documents, max_queries: a seeded sample: so many queries a split, every document judged for them, and
            others up to ``max_documents``. None: all.
        allow_missing: keep judgements of documents that are not there (they count as never found, as trec_eval
            counts them) and drop those of queries that are not; otherwise both are mistakes.
        seed: of the sample.
    """

    max_documents: int | None = None
    max_queries: int | None = None
    allow_missing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_documents", "max_queries"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} {value} must be at least 1; leave it out for all")


def store_source(
    source: Source | ExampleSource,
    work: Path,
    reading: Reading = Reading(),
    ray: RayConfig | None = None,
    check: Callable[[Splits], object] = bool,
) -> Splits:
    """Read a source into ``work/corpus`` and return all of it, the documents as they lie there.

    A call that was interrupted, at any point, goes on in the same folder.

    Args:
        check: gets the source without its documents before those are read, and raises what is wrong with it.

    Raises:
        DataError: naming the first ten mistakes of all files with file, line, value and remedy, and counting all.
    """
    mistakes = Mistakes(source.name)
    if isinstance(source, ExampleSource):
        source = _as_source(source, work, mistakes, ray)
    queries = source.queries(mistakes)
    qrels, run, triples = source.qrels(mistakes), source.run(mistakes), source.triples(mistakes)
    if not mistakes.count:
        nothing = CORPUS.empty_table()
        check(Splits(source.name, TableCorpus(nothing), queries, qrels, run, triples, source.relevance_levels))
    reports = write_pieces(gathered(source.corpus), work / "pieces", CORPUS, mistakes, ray, hashed=True)
    if source.corpus and not mistakes.count and not sum(report.rows for report in reports):
        mistakes.add(source.corpus_name, "holds no document; write one a line, or name another file")
    parts = [part for report in reports for part in report.parts]
    dropped = _repeated(source, reports, parts, mistakes)
    if mistakes.count:
        forget_failed(work)
    mistakes.raise_if_any()
    publish_parts(parts, work / "corpus", CORPUS, dropped)
    corpus = StoredCorpus(work / "corpus")
    data = Splits(source.name, corpus, queries, qrels, run, triples, source.relevance_levels)
    data = replace(data, qrels=check_judgements(source, data, reading.allow_missing))
    data = sample_judgements(data, reading.max_queries, reading.seed)
    if reading.max_documents is not None:
        data = sample_documents(data, reading.max_documents, reading.seed)
    for folder in ("pieces", "examples"):
        remove_pieces(work / folder)
    return data


def write_pieces(
    pieces: Sequence[Piece],
    folder: Path,
    schema: pa.Schema,
    mistakes: Mistakes,
    ray: RayConfig | None = None,
    *,
    hashed: bool = False,
) -> list[PieceReport]:
    """Every piece as parts below ``folder``, in their order; their mistakes go to ``mistakes``.

    Raises:
        DataError: where a worker wrote to a disk that this process does not see.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write = partial(_write_numbered, folder, schema, hashed)
    total = sum(piece.num_bytes for piece in pieces)
    spread(write, list(enumerate(pieces)), total, f"reading {len(pieces)} pieces", ray)
    reports = []
    for number in range(len(pieces)):
        done = piece_folder(folder, number)
        if not is_done(done):
            mistakes.add(
                str(folder),
                f"piece {number} was written on a node whose disk is another; put the output on shared storage",
            )
            continue
        report = read_report(done)
        reports.append(report)
        mistakes.add_all(report.mistakes, report.count)
    return reports


def _write_numbered(folder: Path, schema: pa.Schema, hashed: bool, item: tuple[int, Piece]) -> None:
    write_piece(item[1], folder, item[0], schema, hashed)


def _as_source(source: ExampleSource, work: Path, mistakes: Mistakes, ray: RayConfig | None) -> Source:
    from ranker.data.example_source import examples_as_source

    parts: dict[str, list[Path]] = {}
    rows = 0
    for split, pieces in source.examples.items():
        reports = write_pieces(gathered(pieces), work / "examples" / split, EXAMPLES, mistakes, ray)
        parts[split] = [part for report in reports for part in report.parts]
        rows += sum(report.rows for report in reports)
    if not rows and not mistakes.count:
        mistakes.add(source.name, "holds no training example; write one record a line, or name another file")
    return examples_as_source(source, parts)


def _repeated(
    source: Source, reports: Sequence[PieceReport], parts: Sequence[Path], mistakes: Mistakes
) -> dict[int, NDArray[np.int64]]:
    """Rows to leave out because the same document stands before them; a mistake where ids should differ."""
    rows: dict[int, list[NDArray[np.int64]]] = {}
    repeated: list[str] = []
    count = 0
    for part, found, ids in repeated_ids(parts):
        rows.setdefault(part, []).append(found)
        count += len(ids)
        repeated += ids[: 10 - len(repeated)]
    if count and not source.same_id_same_text:
        _name_repeated(source, set(repeated), count, mistakes)
        return {}
    dropped = {part: np.concatenate(found) for part, found in rows.items()}
    _name_changed(source.corpus_name, parts, dropped, mistakes)
    return dropped


def _name_changed(
    name: str, parts: Sequence[Path], dropped: Mapping[int, NDArray[np.int64]], mistakes: Mistakes
) -> None:
    """Every document that is to be left out, and has another text than the one before it, is a mistake."""
    from ranker.data.example_source import text_id

    repeated: set[str] = set()
    for part, rows in dropped.items():
        table = pq.read_table(parts[part], columns=["doc_id", "text"]).take(pa.array(rows))
        pairs = zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True)
        repeated.update(doc_id for doc_id, text in pairs if doc_id != text_id(text))  # such an id has one text only
    first: dict[str, int] = {}
    for file in parts if repeated else ():
        table = pq.read_table(file)
        for row in table.filter(pc.is_in(table["doc_id"], pa.array(repeated, pa.string()))).to_pylist():
            seen = first.setdefault(row["doc_id"], hash((row["title"], row["text"])))
            if seen != hash((row["title"], row["text"])):
                problem = f"document {row['doc_id']!r} had another text before: {shown(row['text'])}"
                mistakes.add(name, f"{problem}; ids must differ")


def _name_repeated(source: Source, ids: set[str], count: int, mistakes: Mistakes) -> None:
    first: dict[str, str] = {}
    named = 0
    for piece in source.corpus:
        for doc_id, place in piece.places(ids):
            if doc_id not in first:
                first[doc_id] = place
            elif named < count:
                named += 1
                mistakes.add(place, f"id {doc_id!r} was already used at {first[doc_id]}; ids must differ")
    mistakes.count += count - named


def check_judgements(source: Source, data: Splits, allow_missing: bool) -> Mapping[str, pa.Table]:
    """The judgements that can be used.

    Raises:
        DataError: counting the judged queries and documents that are not there and naming some, unless they may be.
    """
    mistakes, kept = Mistakes(source.name), {}
    for split, table in data.qrels.items():
        known = pc.is_in(table["query_id"], data.queries["query_id"])
        lost = {
            "query_id": (table.filter(pc.invert(known))["query_id"].unique().to_pylist(), source.queries_name),
            "doc_id": (data.corpus.missing(table["doc_id"]), source.corpus_name),
        }
        for column, (ids, file) in lost.items():
            if not ids:
                continue
            some = ", ".join(map(repr, ids[:5])) + (", ..." if len(ids) > 5 else "")
            problem = f"{len(ids)} judged {column}s are not in {file}: {some}"
            if allow_missing:
                fate = "these judgements are dropped" if column == "query_id" else "they count as never found"
                log.warning("%s, qrels %s: %s; %s", source.name, split, problem, fate)
            else:
                remedy = "add them, or say --allow-missing (in an experiment data.options.allow_missing: true)"
                mistakes.add(f"qrels {split}", f"{problem}; {remedy}")
        kept[split] = table.filter(known)
    mistakes.raise_if_any()
    return kept
