"""Which queries changed most between two runs, and which documents moved in them."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ranker.evaluation.comparison import Comparison
from ranker.evaluation.significance import SAME
from ranker.measures import order_run
from ranker.schemas import Collection

# Documents shown of a query: the new top ones, then relevant ones that lie deeper or were lost.
TOP = 3
MOST = 6


@dataclass(frozen=True)
class Move:
    """A document in two ranked lists.

    Args:
        text: what a model reads of it. relevance: 0 when it is not judged.
        before, after: rank, 1 for the best; None where the list does not hold it.
    """

    doc_id: str
    text: str
    relevance: int
    before: int | None
    after: int | None


@dataclass(frozen=True)
class QueryChange:
    """One query, its value before and after, and the documents that tell why."""

    query_id: str
    query: str
    before: float
    after: float
    moves: tuple[Move, ...]


def most_changed(
    comparison: Comparison,
    runs: Mapping[str, pa.Table],
    collection: Collection,
    *,
    baseline: str = "retriever",
    measure: str | None = None,
    count: int = 5,
) -> tuple[list[QueryChange], list[QueryChange]]:
    """The ``count`` queries that rose most and those that fell most, the largest change first.

    Equal changes are ordered by query_id. measure None: the comparison's first.
    """
    measure = measure or comparison.measures[0]
    change = dict(zip(comparison.query_ids, comparison.change(baseline, measure).tolist(), strict=True))
    rising = sorted((name for name in change if change[name] > SAME), key=lambda name: (-change[name], name))[:count]
    falling = sorted((name for name in change if change[name] < -SAME), key=lambda name: (change[name], name))[:count]
    tell = _Teller(comparison, runs, collection, baseline, measure, [*rising, *falling])
    return [tell.one(name) for name in rising], [tell.one(name) for name in falling]


class _Teller:
    """Only the rows of the queries that are told are kept as Python values."""

    def __init__(
        self,
        comparison: Comparison,
        runs: Mapping[str, pa.Table],
        collection: Collection,
        baseline: str,
        measure: str,
        query_ids: list[str],
    ) -> None:
        wanted = pa.array(query_ids, pa.string())
        self._ranks = [_ranks(runs[name], wanted) for name in (baseline, comparison.system)]
        self._values = [
            dict(zip(comparison.query_ids, comparison.scores[name].values[measure].tolist(), strict=True))
            for name in (baseline, comparison.system)
        ]
        part = collection.with_queries(query_ids)
        self._queries = dict(zip(part.queries["query_id"].to_pylist(), part.queries["text"].to_pylist(), strict=True))
        self._relevance: dict[str, dict[str, int]] = {}
        for row in part.qrels.to_pylist():
            self._relevance.setdefault(row["query_id"], {})[row["doc_id"]] = row["relevance"]
        self._texts = self._read_texts(collection)

    def _read_texts(self, collection: Collection) -> dict[str, str]:
        shown = {doc_id for ranks in self._ranks for docs in ranks.values() for doc_id in docs}
        shown |= {doc_id for docs in self._relevance.values() for doc_id in docs}
        return collection.texts(shown)

    def one(self, query_id: str) -> QueryChange:
        before, after = (ranks.get(query_id, {}) for ranks in self._ranks)
        relevance = self._relevance.get(query_id, {})
        found = {*before, *after}
        relevant = [doc_id for doc_id, grade in relevance.items() if grade > 0 and doc_id in found]
        top = sorted(after, key=lambda doc_id: after[doc_id])[:TOP]
        shown = list(dict.fromkeys([*top, *relevant, *sorted(before, key=lambda doc_id: before[doc_id])[:1]]))[:MOST]
        shown.sort(key=lambda doc_id: after.get(doc_id, len(after) + 1))
        moves = tuple(
            Move(doc_id, self._texts.get(doc_id, ""), relevance.get(doc_id, 0), before.get(doc_id), after.get(doc_id))
            for doc_id in shown
        )
        values = [values[query_id] for values in self._values]
        return QueryChange(query_id, self._queries.get(query_id, ""), values[0], values[1], moves)


def _ranks(run: pa.Table, query_ids: pa.Array) -> dict[str, dict[str, int]]:
    part = order_run(run.filter(pc.is_in(run["query_id"], query_ids)))
    ranks: dict[str, dict[str, int]] = {}
    for row in part.to_pylist():
        ranks.setdefault(row["query_id"], {})[row["doc_id"]] = row["rank"]
    return ranks
