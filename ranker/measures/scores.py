"""(run, judgements) -> values per query and their mean, all of them computed by ir-measures."""

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ranker.measures.names import DEFAULT_MEASURES, MeasureError, deepest_cutoff, parse
from ranker.measures.order import (
    Ties,
    coded,
    doc_ids_once,
    falling,
    in_single_precision,
    lists_of,
    order_run,
    tied_queries,
    tied_rows,
    top_rows,
)
from ranker.schemas import QRELS, RUN, require


@dataclass(frozen=True)
class Counts:
    """What lies behind a mean, and what could be doubted about it.

    Args:
        queries: judged ones; the mean is over them.
        missing_queries: of these, those that the run does not hold; they count as 0.
        queries_without_relevant: of these, those without a relevant document; they count as 0, as in trec_eval.
        unjudged_queries: queries of the run without a judgement; they are left out of the mean.
        documents: retrieved for judged queries.
        unjudged_documents: of these, those without a judgement; they count as not relevant.
        tied_documents: of these, those that share their score, in single precision, with another of the same query.
    """

    queries: int
    missing_queries: int
    queries_without_relevant: int
    unjudged_queries: int
    documents: int
    unjudged_documents: int
    tied_documents: int

    def as_dict(self) -> dict[str, int]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Scores:
    """Per-query values and their mean.

    Args:
        query_ids: the judged queries, sorted; also those that the run lacks.
        values: measure as typed -> float64 array, one value a query.
    """

    query_ids: tuple[str, ...]
    values: dict[str, NDArray[np.float64]]
    counts: Counts

    @property
    def means(self) -> dict[str, float]:
        """Measure as typed -> mean over the judged queries."""
        return {name: float(values.mean()) if len(values) else 0.0 for name, values in self.values.items()}


def evaluate_run(
    run: pa.Table,
    qrels: pa.Table,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    relevance_level: int = 1,
    ties: Ties = "rank",
) -> Scores:
    """Score RUN against QRELS. Every judged query counts; retrieved documents without judgement count as 0.

    Args:
        relevance_level: for binary measures that do not say theirs, see :func:`parse`.
        ties: what decides among equal scores. ``rank``: the run's ranks, then doc_id (see :func:`order_run`).
            ``score``: nothing here; ir-measures gets the scores as they stand, so that its figures and those of
            pytrec_eval on the same file come out (trec_eval puts the higher doc_id first, in single precision).

    Raises:
        MeasureError: on a measure that is unknown or cannot be computed. SchemaError: on other tables, on a document
        that stands twice in a list, on scores that are no number.
    """
    parsed = {name: parse(name, relevance_level) for name in measures}
    judgements = _Judgements(qrels)
    lists = _Lists(run, judgements)
    counts = lists.counts(relevance_level)
    values = {name: np.zeros(len(judgements.query_ids)) for name in measures}
    for some in _apart(parsed.values()):
        listed = lists.as_dicts(deepest_cutoff(some), ties)
        for metric in _computed(some, judgements.as_dicts, listed):
            for name in measures:
                if parsed[name] == metric.measure:
                    values[name][judgements.place[metric.query_id]] = metric.value
    return Scores(judgements.query_ids, values, counts)


def tie_range(
    run: pa.Table, qrels: pa.Table, scores: Scores, *, relevance_level: int = 1
) -> dict[str, tuple[float, float]]:
    """Measure -> its lowest and highest mean over all orders of documents with equal scores (single precision).

    Args:
        scores: of :func:`evaluate_run` on the same tables, under either rule; only lists with ties are measured again.
    """
    run = require(run, RUN, "run").select(RUN.names)
    run = run.set_column(2, RUN.field("score"), pa.array(in_single_precision(run["score"].to_numpy())))
    run = run.filter(pc.is_in(run["query_id"], tied_queries(run)))
    judged = require(qrels, QRELS, "qrels").select(QRELS.names)
    judged = judged.filter(pc.is_in(judged["query_id"], run["query_id"].unique()))
    rows = run.select(["query_id", "doc_id"]).append_column("row", pa.array(np.arange(run.num_rows)))
    grades = rows.join(judged, ["query_id", "doc_id"]).sort_by("row")["relevance"]
    grade = pc.fill_null(grades, -1).to_numpy()  # what nobody judged is worth least, to `judged@k` too
    ends = []
    for sign in (1, -1):
        ordered = run.set_column(3, RUN.field("rank"), pa.array(sign * grade, pa.int32()))
        ends.append(evaluate_run(ordered, judged, list(scores.values), relevance_level=relevance_level))
    places = np.searchsorted(np.array(scores.query_ids, dtype=object), np.array(ends[0].query_ids, dtype=object))
    found = {}
    for name, values in scores.values.items():
        means = []
        for end in ends:
            changed = values.copy()
            changed[places] = end.values[name]
            means.append(float(changed.mean()) if len(changed) else 0.0)
        found[name] = (means[0], means[1])
    return found


class _Judgements:
    def __init__(self, qrels: pa.Table) -> None:
        self.table = require(qrels, QRELS, "qrels").select(QRELS.names)
        codes, names = coded(self.table["query_id"])
        self.query_ids = tuple(names)
        self.place = {query_id: row for row, query_id in enumerate(names)}
        order = np.argsort(codes, kind="stable")
        starts, sizes = lists_of(codes[order])
        documents = self.table["doc_id"].take(pa.array(order)).to_pylist()
        grades = self.table["relevance"].to_numpy()[order].tolist()
        self.as_dicts = {
            name: dict(zip(documents[start : start + size], grades[start : start + size], strict=True))
            for name, start, size in zip(names, starts.tolist(), sizes.tolist(), strict=True)
        }

    def with_relevant(self, level: int) -> int:
        """Queries that have a relevant document."""
        relevant = self.table.filter(pc.greater_equal(self.table["relevance"], level))
        return len(relevant["query_id"].unique())


class _Lists:
    """The ranked lists of judged queries, ordered once."""

    def __init__(self, run: pa.Table, judgements: _Judgements) -> None:
        run = require(run, RUN, "run").select(RUN.names)
        self._judgements = judgements
        judged = pc.is_in(run["query_id"], pa.array(judgements.query_ids, pa.string()))
        self._asked = len(run["query_id"].unique())
        run = run.filter(judged)
        queries, self._names = coded(run["query_id"])
        order = falling(run, queries)
        self._run, self._queries = run.take(pa.array(order)), queries[order]
        self._scores = self._run["score"].to_numpy()

    def counts(self, relevance_level: int) -> Counts:
        judgements, run = self._judgements, self._run
        num_queries, num_documents = len(judgements.query_ids), run.num_rows
        known = run.join(judgements.table, ["query_id", "doc_id"], join_type="left semi").num_rows
        return Counts(
            queries=num_queries,
            missing_queries=num_queries - len(self._names),
            queries_without_relevant=num_queries - judgements.with_relevant(relevance_level),
            unjudged_queries=self._asked - len(self._names),
            documents=num_documents,
            unjudged_documents=num_documents - known,
            tied_documents=tied_rows(self._queries, self._scores),
        )

    def as_dicts(self, depth: int | None, ties: Ties) -> dict[str, dict[str, float]]:
        """query_id -> doc_id -> score of what can be among the best ``depth``; None: all."""
        run = self._run
        if depth is not None:
            run = run.take(pa.array(top_rows(self._queries, self._scores, depth)))
        if ties == "rank":
            run = order_run(run)
        starts, sizes = lists_of(coded(run["query_id"])[0])
        documents, scores = run["doc_id"].to_pylist(), run["score"].to_pylist()
        listed = {}
        for name, start, size in zip(self._names, starts.tolist(), sizes.tolist(), strict=True):
            listed[name] = dict(zip(documents[start : start + size], scores[start : start + size], strict=True))
            if len(listed[name]) != size:
                doc_ids_once(run)
        return listed


def _apart(measures: Iterable[ir_measures.Measure]) -> list[list[ir_measures.Measure]]:
    """Those that look equally deep together: the top ten of a list cost a hundredth of all of it.

    Measures with gains of their own stand alone: ir-measures computes a plain nDCG beside one of them with those gains.
    """
    groups: dict[tuple[int | None, str], list[ir_measures.Measure]] = {}
    for measure in dict.fromkeys(measures):
        key = deepest_cutoff([measure]), str(measure.params.get("gains", ""))
        groups.setdefault(key, []).append(measure)
    return list(groups.values())


def _computed(
    measures: Sequence[ir_measures.Measure],
    judged: Mapping[str, Mapping[str, int]],
    listed: Mapping[str, Mapping[str, float]],
) -> list[ir_measures.Metric]:
    try:
        return list(ir_measures.iter_calc(measures, judged, listed))
    except (ValueError, RuntimeError, OSError, subprocess.SubprocessError) as error:  # those of its providers
        raise MeasureError(f"ir-measures cannot compute {', '.join(map(str, measures))}: {error}") from error
