"""Several runs on the same queries: their scores, and paired tests between them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ranker.evaluation.significance import Correction, PairedTest, corrected, paired_test
from ranker.measures import DEFAULT_MEASURES, Scores, Ties, evaluate_run
from ranker.schemas import QRELS, require

# Which runs are tested against which: the last against each before it, each later one against the first, or all.
Pairs = Literal["last", "first", "all"]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Comparison:
    """Scores of several systems and the tests between them.

    Args:
        measures: names as typed. scores: system -> its Scores.
        pairs: (before, after) -> measure -> the test of after against before.
        system: the one that a report is about. baseline: what it is told against.
        correction: of the p-values of a measure, over all pairs. tested: which pairs those are.
    """

    measures: tuple[str, ...]
    scores: dict[str, Scores]
    pairs: dict[Pair, dict[str, PairedTest]]
    system: str
    baseline: str
    correction: Correction = "holm"
    tested: Pairs = "last"

    @property
    def tests(self) -> dict[str, dict[str, PairedTest]]:
        """Other system -> measure -> the test of ``system`` against it."""
        return {before: tests for (before, after), tests in self.pairs.items() if after == self.system}

    @property
    def query_ids(self) -> tuple[str, ...]:
        """The judged queries, in the order of every array of values."""
        return self.scores[self.system].query_ids

    def means(self) -> dict[str, dict[str, float]]:
        """System -> measure -> mean over the judged queries."""
        return {system: scores.means for system, scores in self.scores.items()}

    def change(self, baseline: str, measure: str, system: str | None = None) -> np.ndarray:
        """``system`` (None: the comparison's) minus ``baseline``, float64, one value a query."""
        return self.scores[system or self.system].values[measure] - self.scores[baseline].values[measure]

    def best(self, measure: str) -> set[str]:
        """Systems with the highest mean (several when they are equal)."""
        means = {system: scores.means[measure] for system, scores in self.scores.items()}
        return {system for system, mean in means.items() if mean >= max(means.values()) - 1e-12}

    def beaten_by(self, system: str, measure: str, level: float = 0.05) -> list[str]:
        """Systems that ``system`` is significantly better than, at a corrected p below ``level``."""
        found = set()
        for (before, after), tests in self.pairs.items():
            test = tests[measure]
            if system in (before, after) and test.significant(level) and test.difference:
                better, worse = (after, before) if test.difference > 0 else (before, after)
                if better == system:
                    found.add(worse)
        return [name for name in self.scores if name in found]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: means, counts, all tests, and those of the main system by the other's name."""
        return {
            "means": self.means(),
            "counts": {system: scores.counts.as_dict() for system, scores in self.scores.items()},
            "correction": self.correction,
            "significance": {
                other: {measure: asdict(test) for measure, test in tests.items()}
                for other, tests in self._told().items()
            },
            "tests": [
                {"system": after, "against": before, "measure": measure, **asdict(test)}
                for (before, after), tests in self.pairs.items()
                for measure, test in tests.items()
            ],
        }

    def _told(self) -> dict[str, dict[str, PairedTest]]:
        """By the name of the other: each run against the baseline, or the main one against each."""
        return {after: tests for (_, after), tests in self.pairs.items()} if self.tested == "first" else self.tests

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
    pairs: Pairs | Sequence[Pair] = "last",
    baseline: str | None = None,
    correction: Correction = "holm",
    ties: Ties = "rank",
) -> Comparison:
    """Score every RUN against QRELS and test them against one another on the same queries.

    Args:
        relevance_level, ties: as :func:`ranker.measures.evaluate_run` takes them.
        permutations: of the randomisation test and the bootstrap. seed: of both.
        pairs: ``last``: the last run, the main one, against each other. ``first``: each other against the baseline.
            ``all``: every pair; the last is the main one. Or the pairs, (before, after).
        baseline: what the main one is told against. None: the first run.
        correction: of the p-values of a measure for the number of pairs.

    Raises:
        ValueError: without a run or without judgements, on an unknown baseline or correction.
        MeasureError, SchemaError: as :func:`evaluate_run`.
    """
    names = list(runs)
    if not names:
        raise ValueError("no run to compare; give one or more")
    if not require(qrels, QRELS, "qrels").num_rows:
        raise ValueError(f"no judgements to compare by; a QRELS table has {QRELS.names}, one row a judged document")
    first = names[0] if baseline is None else baseline
    if first not in names:
        raise ValueError(f"baseline {first!r} is none of the runs {names}")
    scores = {
        name: evaluate_run(run, qrels, measures, relevance_level=relevance_level, ties=ties)
        for name, run in runs.items()
    }
    chosen = chosen_pairs(names, first, pairs) if isinstance(pairs, str) else list(pairs)
    tested: Pairs = pairs if isinstance(pairs, str) else "last"
    tests: dict[Pair, dict[str, PairedTest]] = {pair: {} for pair in chosen}
    for measure in measures:
        raw = {
            (before, after): paired_test(
                scores[before].values[measure], scores[after].values[measure], permutations, seed
            )
            for before, after in chosen
        }
        for pair, test in corrected(raw, correction).items():
            tests[pair][measure] = test
    main = next((name for name in reversed(names) if name != first or tested == "last"), first)
    return Comparison(tuple(measures), scores, tests, main, first, correction, tested)


def chosen_pairs(names: Sequence[str], baseline: str, pairs: Pairs) -> list[Pair]:
    """(before, after) of every pair that is tested; see :func:`compare_runs`."""
    if pairs == "first":
        return [(baseline, name) for name in names if name != baseline]
    if pairs == "last":
        return [(name, names[-1]) for name in names[:-1]]
    ordered = [baseline, *(name for name in names if name != baseline)]
    return list(combinations(ordered, 2))
