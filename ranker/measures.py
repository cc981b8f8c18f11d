"""``ndcg@10`` and its friends, computed by ir-measures on Arrow tables.

Names follow the user: what is typed is what comes back. Binary measures take ``rel=`` (``mrr(rel=2)@10``).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import ir_measures
import numpy as np
import pandas as pd
import pyarrow as pa

from ranker.registry import nearest
from ranker.schemas import QRELS, RUN, require

DEFAULT_MEASURES = ("ndcg@10", "mrr@10", "map", "hit_rate@10")

# The user's spelling -> ir-measures' name (https://ir-measur.es/en/latest/measures.html).
ALIASES = {
    "ndcg": "nDCG",
    "mrr": "RR",
    "rr": "RR",
    "map": "AP",
    "ap": "AP",
    "hit_rate": "Success",
    "hit": "Success",
    "success": "Success",
    "recall": "R",
    "r": "R",
    "precision": "P",
    "p": "P",
    "judged": "Judged",
}
_SPELLING = re.compile(r"^\s*([A-Za-z_]+)\s*(\([^)]*\))?\s*(?:@\s*(\d+))?\s*$")


class MeasureError(ValueError):
    """A measure that nobody knows, or one that lacks its cutoff."""


def parse(name: str, relevance_level: int = 1) -> ir_measures.Measure:
    """The ir-measures object for ``ndcg@10``, ``mrr(rel=2)@10``, ``hit_rate@10``, ``map`` ...

    Args:
        relevance_level: from which judgement on a binary measure counts a document as relevant, where its name does not
            say it (2 in TREC DL).

    Raises:
        MeasureError: with the nearest known spellings, or naming the missing cutoff.
    """
    match = _SPELLING.match(name)
    if not match or match[1].lower() not in ALIASES:
        word = match[1].lower() if match else name
        raise MeasureError(f"unknown measure {name!r}; {nearest(word, list(ALIASES))}, as in {DEFAULT_MEASURES}")
    official = ALIASES[match[1].lower()]
    if match[3] is None and official in ("Success", "R", "P", "Judged"):
        raise MeasureError(f"measure {name!r} needs a cutoff, as in {name.strip()}@10")
    spelled = f"{official}{match[2] or ''}{'@' + match[3] if match[3] else ''}"
    try:
        measure = ir_measures.parse_measure(spelled)
    except (ValueError, NameError, SyntaxError) as error:
        raise MeasureError(f"measure {name!r}: {error}") from error
    if unknown := measure.params.keys() - measure.SUPPORTED_PARAMS.keys():
        known = sorted(measure.SUPPORTED_PARAMS)
        raise MeasureError(f"measure {name!r}: unknown parameter {sorted(unknown)}; known: {known}")
    if relevance_level != 1 and "rel" in measure.SUPPORTED_PARAMS and "rel" not in measure.params:
        measure = measure(rel=relevance_level)
    return measure


@dataclass(frozen=True)
class Scores:
    """Per-query values and their mean.

    Args:
        query_ids: the judged queries, in order; also those that the run lacks (they count as 0).
        values: measure as typed -> float64 array, one value a query.
        num_missing: judged queries that the run does not hold.
        num_unjudged: queries of the run without a judgement; they are left out of the mean.
        num_ties: documents of the run that share their score with another of the same query.
    """

    query_ids: tuple[str, ...]
    values: dict[str, np.ndarray]
    num_missing: int
    num_unjudged: int
    num_ties: int

    @property
    def means(self) -> dict[str, float]:
        """Measure as typed -> mean over the judged queries."""
        return {name: float(values.mean()) if len(values) else 0.0 for name, values in self.values.items()}


def order_run(run: pa.Table) -> pa.Table:
    """RUN in rank order with strictly falling float scores, so that no tool's tie rule can change the order.

    The order is by score, descending; equal scores keep their rank, then doc_id. The new score of rank r of
    n is n + 1 - r. trec_eval ignores ranks and breaks ties by doc_id, descending.
    """
    frame = require(run, RUN, "run").select(RUN.names).to_pandas()
    frame = frame.sort_values(["query_id", "score", "rank", "doc_id"], ascending=[True, False, True, True])
    rank = frame.groupby("query_id", sort=False).cumcount() + 1
    size = frame.groupby("query_id", sort=False)["doc_id"].transform("size")
    frame["rank"], frame["score"] = rank.astype("int32"), (size + 1 - rank).astype("float64")
    return pa.Table.from_pandas(frame, schema=RUN, preserve_index=False)


def evaluate_run(
    run: pa.Table, qrels: pa.Table, measures: Sequence[str] = DEFAULT_MEASURES, *, relevance_level: int = 1
) -> Scores:
    """Score RUN against QRELS. Every judged query counts; retrieved documents without judgement count as 0.

    Args:
        relevance_level: for binary measures that do not say theirs, see :func:`parse`.

    Raises:
        MeasureError: on an unknown measure. SchemaError: on other tables.
    """
    parsed = {name: parse(name, relevance_level) for name in measures}
    ordered = order_run(run).to_pandas()
    judged = require(qrels, QRELS, "qrels").select(QRELS.names).to_pandas()
    query_ids = tuple(sorted(judged["query_id"].unique()))
    position = {query_id: row for row, query_id in enumerate(query_ids)}
    values = {name: np.zeros(len(query_ids)) for name in measures}
    names = {measure: [name for name in measures if parsed[name] == measure] for measure in set(parsed.values())}
    known = ordered[ordered["query_id"].isin(position)]
    if len(known):
        for metric in ir_measures.iter_calc(list(names), judged, known):
            for name in names[metric.measure]:
                values[name][position[metric.query_id]] = metric.value
    retrieved = set(ordered["query_id"].unique())
    return Scores(
        query_ids,
        values,
        num_missing=len(position.keys() - retrieved),
        num_unjudged=len(retrieved - position.keys()),
        num_ties=_count_ties(run),
    )


def _count_ties(run: pa.Table) -> int:
    frame: pd.DataFrame = run.select(["query_id", "score"]).to_pandas()
    return int(frame.duplicated(keep=False).sum())
