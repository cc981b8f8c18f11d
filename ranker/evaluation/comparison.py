"""Several runs on the same queries: their scores, and the last one tested against each of the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ranker.evaluation.significance import PairedTest, corrected, paired_test
from ranker.measures import DEFAULT_MEASURES, Scores, evaluate_run
from ranker.schemas import QRELS


@dataclass(frozen=True)
class Comparison:
    """Scores of several systems and the tests of one of them against the others.

    Args:
        measures: names as typed. scores: system -> its Scores, the tested system last.
        tests: baseline -> measure -> the tested system against that baseline.
    """

    measures: tuple[str, ...]
    scores: dict[str, Scores]
    tests: dict[str, dict[str, PairedTest]]

    @property
    def system(self) -> str:
        """Name of the tested system."""
        return list(self.scores)[-1]

    @property
    def query_ids(self) -> tuple[str, ...]:
        """The judged queries, in the order of every array of values."""
        return self.scores[self.system].query_ids

    def means(self) -> dict[str, dict[str, float]]:
        """System -> measure -> mean over the judged queries."""
        return {system: scores.means for system, scores in self.scores.items()}

    def change(self, baseline: str, measure: str) -> np.ndarray:
        """The tested system minus ``baseline``, float64, one value a query."""
        return self.scores[self.system].values[measure] - self.scores[baseline].values[measure]

    def best(self, measure: str) -> set[str]:
        """Systems with the highest mean (several when they are equal)."""
        means = {system: scores.means[measure] for system, scores in self.scores.items()}
        return {system for system, mean in means.items() if mean >= max(means.values()) - 1e-12}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: means, counts, significance."""
        return {
            "means": self.means(),
            "counts": {
                system: {"missing": scores.num_missing, "unjudged": scores.num_unjudged, "ties": scores.num_ties}
                for system, scores in self.scores.items()
            },
            "significance": {
                baseline: {measure: asdict(test) for measure, test in tests.items()}
                for baseline, tests in self.tests.items()
            },
        }

    def per_query(self) -> pa.Table:
        """Long table: query_id, system, measure, value."""
        rows = list(self._rows())
        names = ("query_id", "system", "measure", "value")
        types = (pa.string(), pa.string(), pa.string(), pa.float64())
        columns = zip(*rows, strict=True) if rows else ([] for _ in names)
        return pa.table({
            name: pa.array(column, kind) for name, column, kind in zip(names, columns, types, strict=True)
        })  # fmt: skip

    def _rows(self) -> Iterator[tuple[str, str, str, float]]:
        for system, scores in self.scores.items():
            for measure, values in scores.values.items():
                for query_id, value in zip(scores.query_ids, values.tolist(), strict=True):
                    yield query_id, system, measure, value


def compare_runs(
    runs: Mapping[str, pa.Table],
    qrels: pa.Table,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    relevance_level: int = 1,
    permutations: int = 10_000,
    seed: int = 13,
) -> Comparison:
    """Score every RUN against QRELS and test the last run against each of the others.

    P-values of a measure are corrected for the number of baselines.

    Args:
        relevance_level: as :func:`ranker.measures.evaluate_run` takes it. permutations, seed: of the test.

    Raises:
        ValueError: without a run or without judgements. MeasureError, SchemaError: as :func:`evaluate_run`.
    """
    scores = _score(runs, qrels, measures, relevance_level)
    *baselines, system = scores
    pairs = {baseline: (baseline, system) for baseline in baselines}
    return Comparison(tuple(measures), scores, _test(scores, pairs, measures, permutations, seed))


def compare_with_first(
    runs: Mapping[str, pa.Table],
    qrels: pa.Table,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    permutations: int = 10_000,
    seed: int = 13,
) -> dict[str, Any]:
    """The same the other way round: each later RUN tested against the first, as plain values."""
    scores = _score(runs, qrels, measures)
    baseline, *others = scores
    pairs = {other: (baseline, other) for other in others}
    tests = _test(scores, pairs, measures, permutations, seed)
    return Comparison(tuple(measures), scores, tests).as_dict()


def _score(
    runs: Mapping[str, pa.Table], qrels: pa.Table, measures: Sequence[str], relevance_level: int = 1
) -> dict[str, Scores]:
    if not runs:
        raise ValueError("no run to compare; give one or more")
    if not qrels.num_rows:
        raise ValueError(f"no judgements to compare by; a QRELS table has {QRELS.names}, one row a judged document")
    return {system: evaluate_run(run, qrels, measures, relevance_level=relevance_level) for system, run in runs.items()}


def _test(
    scores: Mapping[str, Scores],
    pairs: Mapping[str, tuple[str, str]],
    measures: Sequence[str],
    permutations: int,
    seed: int,
) -> dict[str, dict[str, PairedTest]]:
    tests: dict[str, dict[str, PairedTest]] = {name: {} for name in pairs}
    for measure in measures:
        raw = {
            name: paired_test(scores[before].values[measure], scores[after].values[measure], permutations, seed)
            for name, (before, after) in pairs.items()
        }
        for name, test in corrected(raw).items():
            tests[name][measure] = test
    return tests
