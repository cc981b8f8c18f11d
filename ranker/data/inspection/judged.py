"""What the judgements, candidates and triples of a data set come to, and which of their ids are not there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.data.inspection.copies import Some, some_of
from ranker.data.splits import Splits
from ranker.schemas import StoredCorpus

PAIR = ["query_id", "doc_id"]


@dataclass(frozen=True)
class Spread:
    """The least, the mean and the most of something."""

    min: float
    mean: float
    max: float


@dataclass(frozen=True)
class SplitCounts:
    """The judgements of one split.

    Args:
        queries: that are judged. relevance_level: judgements from this number on are relevant.
        relevant_a_query: relevant judgements of each judged query. grades: relevance -> judgements.
        without_relevant: judged queries without a relevant judgement.
        missing_documents, missing_queries: judged ids that are not in the corpus, not among the queries.
    """

    queries: int
    judgements: int
    relevant: int
    relevance_level: int
    relevant_a_query: Spread | None
    grades: dict[str, int]
    without_relevant: Some
    missing_documents: Some
    missing_queries: Some


@dataclass(frozen=True)
class Held:
    """How far the candidates reach in one split.

    Args:
        queries: judged ones that have candidates. relevant: documents relevant to them. held: of those, how many
            are candidates. share: the same as a share; None without relevant documents.
    """

    queries: int
    relevant: int
    held: int
    share: float | None


@dataclass(frozen=True)
class CandidateCounts:
    """The ranked lists that a data set gives.

    Args:
        lists: queries with candidates. documents_a_list: of each. missing_documents, missing_queries: ids that are not
            in the corpus, not among the queries. splits: those of which some query has candidates.
    """

    lists: int
    documents_a_list: Spread | None
    missing_documents: Some
    missing_queries: Some
    splits: dict[str, Held]


@dataclass(frozen=True)
class TripleCounts:
    """The training triples that a data set gives for one split."""

    triples: int
    queries: int
    missing_documents: Some
    missing_queries: Some


def spread_of(counts: pa.Array | pa.ChunkedArray) -> Spread | None:
    """None: there is nothing to count."""
    if not len(counts):
        return None
    ends = pc.min_max(counts)
    return Spread(float(ends["min"].as_py()), float(pc.mean(counts).as_py()), float(ends["max"].as_py()))


def missing_documents(data: Splits) -> pa.Array:
    """Ids in judgements, candidates and triples that no document has, sorted; the corpus is read once."""
    left = unique_ids(_doc_ids(data))
    for part in data.corpus.parts if isinstance(data.corpus, StoredCorpus) else ():
        if not len(left):
            break
        left = left.filter(pc.invert(pc.is_in(left, pq.read_table(part, columns=["doc_id"])["doc_id"])))
    return left.take(pc.sort_indices(left))


def unique_ids(columns: Iterable[pa.ChunkedArray]) -> pa.Array:
    """Every id once."""
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()).unique()


def _doc_ids(data: Splits) -> Iterable[pa.ChunkedArray]:
    for table in [*data.qrels.values(), *([] if data.run is None else [data.run])]:
        yield table["doc_id"]
    for table in data.triples.values():
        yield from (table["positive_id"], table["negative_id"])


def count_splits(data: Splits, missing: pa.Array) -> dict[str, SplitCounts]:
    """Of every split; ``missing`` as of :func:`missing_documents`."""
    return {split: _count_split(data, split, missing) for split in data.qrels}


def _count_split(data: Splits, split: str, missing: pa.Array) -> SplitCounts:
    table, level = data.qrels[split], data.relevance_levels.get(split, 1)
    judged = table["query_id"].unique()
    relevant = table.filter(pc.greater_equal(table["relevance"], level))
    found = _a_value(relevant["query_id"])
    without = judged.filter(pc.invert(pc.is_in(judged, found["value"])))
    each = pa.chunked_array([*found["count"].chunks, pa.array(np.zeros(len(without), dtype=np.int64))], pa.int64())
    grades = _a_value(table["relevance"]).sort_by("value")
    return SplitCounts(
        len(judged),
        table.num_rows,
        relevant.num_rows,
        level,
        spread_of(each),
        {str(grade): count for grade, count in zip(*(grades[n].to_pylist() for n in ("value", "count")), strict=True)},
        some_of(without),
        _found_in(table["doc_id"], missing),
        some_of(_absent(judged, data.queries["query_id"])),
    )


def _a_value(column: pa.ChunkedArray) -> pa.Table:
    """(value, count) of a column."""
    counts = column.value_counts()
    return pa.table({"value": counts.field("values"), "count": counts.field("counts")})


def _absent(ids: pa.Array, known: pa.ChunkedArray) -> pa.Array:
    return ids.filter(pc.invert(pc.is_in(ids, known)))


def _found_in(column: pa.ChunkedArray, ids: pa.Array) -> Some:
    return some_of(ids.filter(pc.is_in(ids, column)))


def count_candidates(data: Splits, missing: pa.Array) -> CandidateCounts | None:
    """None: the data set gives no candidates."""
    run = data.run
    if run is None:
        return None
    lists = _a_value(run["query_id"])
    asked = lists["value"].combine_chunks()
    reach = {split: _held(data, split, run, asked) for split in data.qrels}
    return CandidateCounts(
        lists.num_rows,
        spread_of(lists["count"]),
        _found_in(run["doc_id"], missing),
        some_of(_absent(asked, data.queries["query_id"])),
        {split: held for split, held in reach.items() if held.queries},
    )


def _held(data: Splits, split: str, run: pa.Table, asked: pa.Array) -> Held:
    table = data.qrels[split]
    judged = table["query_id"].unique()
    with_list = pc.is_in(table["query_id"], asked)
    keep = pc.and_(with_list, pc.greater_equal(table["relevance"], data.relevance_levels.get(split, 1)))
    relevant = table.filter(keep).select(PAIR)
    held = relevant.join(run.select(PAIR), keys=PAIR, join_type="left semi").num_rows
    queries = int(pc.sum(pc.is_in(judged, asked)).as_py() or 0)
    return Held(queries, relevant.num_rows, held, held / relevant.num_rows if relevant.num_rows else None)


def count_triples(triples: Mapping[str, pa.Table], queries: pa.Table, missing: pa.Array) -> dict[str, TripleCounts]:
    """Of every split that has triples."""
    found = {}
    for split, table in triples.items():
        asked = table["query_id"].unique()
        documents = unique_ids([table["positive_id"], table["negative_id"]])
        absent = _found_in(pa.chunked_array([documents]), missing)
        found[split] = TripleCounts(table.num_rows, len(asked), absent, some_of(_absent(asked, queries["query_id"])))
    return found


def judged_ids(data: Splits) -> pa.Array:
    """doc_ids with a judgement in some split, each once."""
    return unique_ids(table["doc_id"] for table in data.qrels.values())


def unjudged_queries(data: Splits) -> Some:
    """Queries without a judgement in any split."""
    judged = unique_ids(table["query_id"] for table in data.qrels.values())
    return some_of(_absent(data.queries["query_id"].combine_chunks(), judged))


def all_relevant_ids(data: Splits) -> pa.Array:
    """doc_ids that are relevant in some split, each once."""
    return unique_ids(pa.chunked_array([data.relevant_ids(split)], pa.string()) for split in data.qrels)
