"""Which documents stand in a training example, and with which label: decided on ids, before any text is read."""

import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.data.errors import DataError
from ranker.data.grouping import LABELLED, group_texts
from ranker.data.leakage import with_copies
from ranker.data.splits import Splits
from ranker.schemas import Collection, Corpus

# More are drawn than are asked for: some turn out to be relevant, reserved or copies.
SPARE = 8
BLOCK_QUERIES = 10_000
BLOCK_LABELS = 100_000


@dataclass(frozen=True)
class Mixture:
    """How many negatives a query gets, and of which kind.

    Args:
        num_negatives: for every relevant document of the query.
        random_ratio: share of them that is drawn from the whole corpus. The rest are hard: judged irrelevant, then
            the collection's candidates in their order, then, where those do not suffice, random ones again.
        seed: of everything that is drawn; a query draws the same whatever other queries there are.
    """

    num_negatives: int = 1
    random_ratio: float = 0.0
    seed: int = 13

    def __post_init__(self) -> None:
        if self.num_negatives < 1:
            raise DataError(f"num_negatives {self.num_negatives} must be at least 1")
        if not 0 <= self.random_ratio <= 1:
            raise DataError(f"random_ratio {self.random_ratio} must be between 0 and 1")


@dataclass(frozen=True)
class Barred:
    """Documents that no training example of a collection may hold.

    Args:
        reserved: relevant to queries that were held out, or of the same text as one that is. missing: judged, or
            named by the candidates or triples, and not in the corpus.
    """

    reserved: frozenset[str]
    missing: frozenset[str]

    @classmethod
    def of(cls, collection: Collection) -> "Barred":
        """In two passes over the corpus where something is reserved, and one over its ids."""
        given = collection.reserved
        reserved = with_copies(collection.documents, given).to_pylist() if given is not None and len(given) else []
        named = [collection.qrels["doc_id"]]
        named += [collection.run["doc_id"]] if collection.run is not None else []
        if collection.triples is not None:
            named += [collection.triples[name] for name in ("positive_id", "negative_id")]
        ids = pa.chunked_array([chunk for column in named for chunk in column.chunks], pa.string())
        return cls(frozenset(reserved), frozenset(collection.documents.missing(ids)))

    def __contains__(self, doc_id: str) -> bool:
        return doc_id in self.reserved or doc_id in self.missing


@dataclass(frozen=True)
class _Query:
    query_id: str
    positives: dict[str, int]
    hard: list[str]
    known: Set[str]
    barred: Barred
    needed: int


def training_labels(collection: Collection, mixture: Mixture) -> pa.Table:
    """LABELLED of every query with a relevant document: those (with their grade), hard negatives, random ones (0).

    A grade below the collection's relevance level is 0, so that a label above 0 always means relevant. Neither a
    relevant document of the query nor a reserved one of the collection, nor a copy of that, becomes a negative; a
    reserved one is no positive either. Documents that the corpus lacks are left out. Some spare negatives stand behind:
    copies of positives by text are only found with the texts.
    """
    barred = Barred.of(collection)
    # Twice over the queries, some at a time: as Python objects all of them would take more than their texts do.
    rows = [_rows_of(query, collection, mixture) for query in _queries(collection, barred, mixture)]
    ends = np.cumsum([0, *map(len, rows)]).tolist()
    ids = ids_at(collection.documents, np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64))
    tables, waiting = [LABELLED.empty_table()], []
    for query, (low, high) in zip(_queries(collection, barred, mixture), pairwise(ends), strict=True):
        waiting += [(query.query_id, doc_id, float(grade), None) for doc_id, grade in query.positives.items()]
        negatives = _mixed(query, ids.slice(low, high - low).to_pylist(), mixture.random_ratio)
        waiting += [(query.query_id, doc_id, 0.0, None) for doc_id in negatives]
        if len(waiting) > BLOCK_LABELS:
            tables.append(_labelled(waiting))
            waiting = []
    return pa.concat_tables([*tables, _labelled(waiting)])


def _queries(collection: Collection, barred: Barred, mixture: Mixture) -> Iterator[_Query]:
    for some in _blocks(collection):
        relevant, irrelevant = _judged(some)
        candidates = _candidates(some)
        for query_id in some.queries["query_id"].to_pylist():
            known = relevant.get(query_id, {})
            positives = {doc_id: grade for doc_id, grade in known.items() if doc_id not in barred}
            if positives:
                ordered = dict.fromkeys([*irrelevant.get(query_id, []), *candidates.get(query_id, [])])
                hard = [doc_id for doc_id in ordered if doc_id not in known and doc_id not in barred]
                yield _Query(query_id, positives, hard, known.keys(), barred, mixture.num_negatives * len(positives))


def _blocks(collection: Collection) -> Iterator[Collection]:
    """Some of its queries at a time."""
    query_ids = collection.queries["query_id"]
    for start in range(0, len(query_ids), BLOCK_QUERIES):
        yield collection.with_queries(query_ids.slice(start, BLOCK_QUERIES).to_pylist())


def why_no_labels(collection: Collection) -> str:
    """Why its queries give no training example, each of them counted, and what to do: for an error message."""
    if not collection.queries.num_rows:
        return "it has no queries; name a split that is judged"
    barred, level = Barred.of(collection), max(1, collection.relevance_level)
    counts: Counter[str] = Counter()
    for some in _blocks(collection):
        relevant, _ = _judged(some)
        for query_id in some.queries["query_id"].to_pylist():
            known = relevant.get(query_id, {}).keys()
            lost, kept = known & barred.missing, known - barred.missing
            counts["unjudged"] += not known
            counts["missing"] += bool(lost) and not kept
            counts["reserved"] += bool(kept) and kept <= barred.reserved
            counts["alone"] += bool(kept - barred.reserved)
    said = {
        "unjudged": f"have no document that is judged {level} or above; add qrels",
        "missing": "have only relevant documents that are not in the corpus; add them",
        "reserved": "have only relevant documents that answer queries of other splits too; give the data set splits "
        "that share no document",
        "alone": "have no document of another text beside the relevant ones; add documents that answer nothing",
    }
    return "; ".join(f"{count} of {counts.total()} queries {said[why]}" for why, count in counts.items() if count)


def _judged(collection: Collection) -> tuple[dict[str, dict[str, int]], dict[str, list[str]]]:
    """query_id -> its relevant documents with their grades, best first; query_id -> those judged irrelevant."""
    relevant: dict[str, dict[str, int]] = {}
    irrelevant: dict[str, list[str]] = {}
    columns = (collection.qrels[name].to_pylist() for name in ("query_id", "doc_id", "relevance"))
    for query_id, doc_id, grade in zip(*columns, strict=True):
        if grade >= max(1, collection.relevance_level):
            relevant.setdefault(query_id, {})[doc_id] = grade
        else:
            irrelevant.setdefault(query_id, []).append(doc_id)
    if collection.triples is not None:
        for query_id, positive, negative in _triples(collection.triples):
            relevant.setdefault(query_id, {}).setdefault(positive, 1)
            irrelevant.setdefault(query_id, []).append(negative)
    ordered = {q: dict(sorted(known.items(), key=lambda item: -item[1])) for q, known in relevant.items()}
    return ordered, irrelevant


def _triples(triples: pa.Table) -> Iterable[tuple[str, str, str]]:
    return zip(*(triples[name].to_pylist() for name in triples.column_names[:3]), strict=True)


def _candidates(collection: Collection) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if collection.run is not None:
        run = collection.run.sort_by([("query_id", "ascending"), ("rank", "ascending")])
        for query_id, doc_id in zip(run["query_id"].to_pylist(), run["doc_id"].to_pylist(), strict=True):
            found.setdefault(query_id, []).append(doc_id)
    return found


def _num_random(query: _Query, ratio: float) -> int:
    """Random negatives that the ratio asks for; where hard ones are short there are more."""
    return max(round(ratio * query.needed), query.needed - len(query.hard))


def _rows_of(query: _Query, collection: Collection, mixture: Mixture) -> NDArray[np.int64]:
    """Random positions in the corpus, some more than are needed; the same for a query whatever the others are."""
    size = collection.documents.num_rows
    lost = len(query.known) + len(query.barred.reserved) + len(query.hard)
    wanted = math.ceil((_num_random(query, mixture.random_ratio) + SPARE) * size / max(1, size - lost))
    rng = np.random.default_rng([mixture.seed, crc32(query.query_id.encode())])
    if wanted * SPARE > size:  # so many of so few that they would often meet
        return rng.permutation(size)[:wanted]
    return rng.integers(size, size=wanted)


def ids_at(corpus: Corpus, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    """doc_ids of the documents at these positions, in the order of ``rows``; one pass over the ids of the corpus."""
    wanted, back = np.unique(rows, return_inverse=True)
    found, position = [], 0
    for block in corpus.blocks(["doc_id"]):
        low, high = np.searchsorted(wanted, [position, position + block.num_rows])
        if high > low:
            found.append(block["doc_id"].take(pa.array(wanted[low:high] - position)).combine_chunks())
        position += block.num_rows
    return pa.chunked_array(found, pa.string()).take(pa.array(back.astype(np.int64)))


def _mixed(query: _Query, random_ids: Sequence[str], ratio: float) -> list[str]:
    """Hard negatives, then random ones; enough of both that ``needed`` stay when copies are dropped.

    The first ``needed`` are what is asked for: the share of random ones stands before the spare hard ones.
    """
    hard = set(query.hard)
    random = [
        doc_id
        for doc_id in dict.fromkeys(random_ids)
        if doc_id not in hard and doc_id not in query.known and doc_id not in query.barred
    ]
    if not ratio:
        return [*query.hard[: query.needed + SPARE], *random]
    num_hard = min(len(query.hard), query.needed - round(ratio * query.needed))
    return [*query.hard[:num_hard], *random, *query.hard[num_hard : query.needed + SPARE]]


def judged_labels(data: Splits, split: str) -> pa.Table:
    """LABELLED of everything that is judged in a split, in its order by query, with the candidates' scores."""
    scores = _scores(data.run)
    table = data.qrels[split]
    order = {query_id: number for number, query_id in enumerate(table["query_id"].unique().to_pylist())}
    columns = (table[name].to_pylist() for name in ("query_id", "doc_id", "relevance"))
    rows = [(q, d, float(grade), scores.get((q, d))) for q, d, grade in zip(*columns, strict=True)]
    rows.sort(key=lambda row: (order[row[0]], -row[2]))
    return _labelled(rows)


def _scores(run: pa.Table | None) -> Mapping[tuple[str, str], float]:
    if run is None:
        return {}
    columns = [run[name].to_pylist() for name in ("query_id", "doc_id", "score")]
    return {(query_id, doc_id): score for query_id, doc_id, score in zip(*columns, strict=True)}


def _labelled(rows: Sequence[tuple[str, str, float, float | None]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(LABELLED)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, LABELLED, strict=True)]
    return pa.table(arrays, schema=LABELLED)


def judged_examples(data: Splits) -> dict[str, Iterator[pa.Table]]:
    """Split -> EXAMPLES of everything that is judged in it, a part at a time."""
    return {split: _judged_parts(data, split) for split in data.qrels}


def _judged_parts(data: Splits, split: str) -> Iterator[pa.Table]:
    with tempfile.TemporaryDirectory(prefix="ranker-examples-") as folder:
        for part in group_texts(judged_labels(data, split), data.queries, data.corpus, Path(folder), shared=False):
            yield pq.read_table(part)
