"""Which queries changed most between two runs, and which documents moved in them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
        text: what a model reads of it; empty where only ids are known. relevance: None where it is not judged.
        before, after: rank, 1 for the best; None where the list does not hold it.
    """

    doc_id: str
    text: str
    relevance: int | None
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
    qrels: pa.Table,
    *,
    collection: Collection | None = None,
    system: str | None = None,
    baseline: str | None = None,
    measure: str | None = None,
    count: int = 5,
) -> tuple[list[QueryChange], list[QueryChange]]:
    """The ``count`` queries that rose most and those that fell most, the largest change first.

    Equal changes are ordered by query_id.

    Args:
        collection: gives the texts. None: ids only.
        system, baseline: after and before. None: the comparison's.
        measure: None: the comparison's first.
    """
    measure = measure or comparison.measures[0]
    after, before = system or comparison.system, baseline or comparison.baseline
    change = dict(zip(comparison.query_ids, comparison.change(before, measure, after).tolist(), strict=True))
    rising = sorted((name for name in change if change[name] > SAME), key=lambda name: (-change[name], name))[:count]
    falling = sorted((name for name in change if change[name] < -SAME), key=lambda name: (change[name], name))[:count]
    chosen = [*rising, *falling]
    values = {
        name: dict(zip(comparison.query_ids, comparison.scores[name].values[measure].tolist(), strict=True))
        for name in (before, after)
    }
    ranks = [_ranks(runs[name], chosen) for name in (before, after)]
    tell = _Teller(ranks, _grades(qrels, chosen), collection, chosen)
    told = {name: tell.one(name, values[before][name], values[after][name]) for name in chosen}
    return [told[name] for name in rising], [told[name] for name in falling]


def changes_as_dict(rising: Sequence[QueryChange], falling: Sequence[QueryChange]) -> dict[str, Any]:
    """``{"better": [...], "worse": [...]}`` as plain values."""
    return {"better": [_plain(change) for change in rising], "worse": [_plain(change) for change in falling]}


def _plain(change: QueryChange) -> dict[str, Any]:
    moved = [
        {"doc_id": move.doc_id, "relevance": move.relevance, "before": move.before, "after": move.after}
        for move in change.moves
    ]
    query = {"query": change.query} if change.query else {}
    values = {"before": change.before, "after": change.after, "difference": change.after - change.before}
    return {"query_id": change.query_id, **query, **values, "documents": moved}


class _Teller:
    """Only the rows of the queries that are told are kept as Python values."""

    def __init__(
        self,
        ranks: Sequence[Mapping[str, Mapping[str, int]]],
        grades: Mapping[str, Mapping[str, int]],
        collection: Collection | None,
        query_ids: Sequence[str],
    ) -> None:
        self._ranks, self._grades = ranks, grades
        self._shown = {name: self._documents(name) for name in query_ids}
        self._texts: dict[str, str] = {}
        self._queries: dict[str, str] = {}
        if collection is not None:
            asked = collection.with_queries(query_ids).queries
            self._queries = dict(zip(asked["query_id"].to_pylist(), asked["text"].to_pylist(), strict=True))
            self._texts = collection.texts({doc_id for shown in self._shown.values() for doc_id in shown})

    def _documents(self, query_id: str) -> list[str]:
        before, after = (ranks.get(query_id, {}) for ranks in self._ranks)
        relevant = [
            doc for doc, grade in self._grades.get(query_id, {}).items() if grade > 0 and doc in {**before, **after}
        ]
        relevant.sort(key=lambda doc: min(before.get(doc, 10**9), after.get(doc, 10**9)))
        shown = dict.fromkeys([*_best(after, TOP), *relevant, *_best(before, 1)])
        return sorted(list(shown)[:MOST], key=lambda doc: after.get(doc, len(after) + 1))

    def one(self, query_id: str, before: float, after: float) -> QueryChange:
        ranks, grades = [ranks.get(query_id, {}) for ranks in self._ranks], self._grades.get(query_id, {})
        moves = tuple(
            Move(doc, self._texts.get(doc, ""), grades.get(doc), ranks[0].get(doc), ranks[1].get(doc))
            for doc in self._shown[query_id]
        )
        return QueryChange(query_id, self._queries.get(query_id, ""), before, after, moves)


def _best(ranks: Mapping[str, int], count: int) -> list[str]:
    return sorted(ranks, key=lambda doc: ranks[doc])[:count]


def _of_queries(table: pa.Table, query_ids: Iterable[str]) -> pa.Table:
    return table.filter(pc.is_in(table["query_id"], pa.array(query_ids, pa.string())))


def _grades(qrels: pa.Table, query_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for row in _of_queries(qrels, query_ids).to_pylist():
        grades.setdefault(row["query_id"], {})[row["doc_id"]] = row["relevance"]
    return grades


def _ranks(run: pa.Table, query_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    ranks: dict[str, dict[str, int]] = {}
    for row in order_run(_of_queries(run, query_ids)).to_pylist():
        ranks.setdefault(row["query_id"], {})[row["doc_id"]] = row["rank"]
    return ranks
