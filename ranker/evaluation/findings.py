"""What a report says, in words and numbers: shared by its HTML and Markdown forms."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ranker.evaluation.comparison import Comparison
from ranker.evaluation.significance import PairedTest
from ranker.manifest import installed_packages
from ranker.measures import parse
from ranker.schemas import Collection

BASELINE = "retriever"
# Characters of a document that are shown.
EXCERPT = 240
TEST_HEADS = (
    "against",
    "measure",
    "change",
    "95% interval",
    "p",
    "p, corrected",
    "p, t-test",
    "better",
    "same",
    "worse",
)
TEST_NOTE = (
    "p: Fisher's randomisation test, two-sided, paired by query; corrected for the number of baselines (Holm). "
    "Interval: percentile bootstrap over the queries."
)


@dataclass(frozen=True)
class Report:
    """All that is told.

    Args:
        facts: experiment, collection, counts, depth, model, seed. comparison: scores and tests.
        speed: as in metrics.json. runs: system -> RUN. collection: for texts and judgements.
    """

    facts: dict[str, Any]
    comparison: Comparison
    speed: dict[str, Any]
    runs: Mapping[str, pa.Table]
    collection: Collection
    packages: dict[str, str] = field(default_factory=installed_packages)

    @property
    def measure(self) -> str:
        """The measure that the headline, the plot and the changed queries are about: the first."""
        return self.comparison.measures[0]


def test_rows(comparison: Comparison) -> list[list[str]]:
    """One row a baseline and measure, under TEST_HEADS."""
    return [
        [baseline, measure, *_test_cells(test)]
        for baseline, tests in comparison.tests.items()
        for measure, test in tests.items()
    ]


def _test_cells(test: PairedTest) -> list[str]:
    p_values = [f"{p:.2g}" for p in (test.p_randomisation, test.p_corrected, test.p_ttest)]
    counts = [str(count) for count in (test.wins, test.ties, test.losses)]
    return [f"{test.difference:+.4f}", f"{test.low:+.4f} to {test.high:+.4f}", *p_values, *counts]


def system_letters(comparison: Comparison) -> dict[str, str]:
    """Baseline -> a, b, ...: what stands beside a value that differs significantly from it."""
    return dict(zip(comparison.tests, "abcdefghijklmnopqrstuvwxyz", strict=False))


def significant_letters(comparison: Comparison, measure: str, letters: Mapping[str, str]) -> tuple[str, str]:
    """Letters of the baselines that the tested system beats, and of those that beat it, at p < 0.05 corrected."""
    better = worse = ""
    for baseline, letter in letters.items():
        test = comparison.tests[baseline][measure]
        if test.significant():
            better += letter if test.difference > 0 else ""
            worse += letter if test.difference < 0 else ""
    return better, worse


def letter_note(letters: Mapping[str, str]) -> str:
    """What the letters in the table mean."""
    names = ", ".join(f"{letter} {name}" for name, letter in letters.items())
    return f"Bold: the best. Letters: significantly better (minus: worse) than {names}, p < 0.05"


def count_notes(comparison: Comparison) -> list[str]:
    """A sentence a system for each thing that could be doubted about its figures."""
    notes = []
    for system, scores in comparison.scores.items():
        counts = scores.counts
        facts = [
            (counts.missing_queries, "judged queries have no result and count as 0"),
            (counts.unjudged_queries, "queries have no judgement and are left out"),
            (
                counts.unjudged_documents,
                f"of {counts.documents:,} documents have no judgement and count as not relevant",
            ),
            (counts.tied_documents, "documents share their score with another of the query"),
        ]
        said = [f"{count:,} {what}" for count, what in facts if count]
        if said:
            notes.append(f"{system}: {'; '.join(said)}")
    return notes


def subtitle(facts: Mapping[str, Any]) -> str:
    """What was measured, in one line."""
    mix = f", {facts['interpolation']:.2f} of the retriever's score mixed in" if facts.get("interpolation") else ""
    return (
        f"{facts['num_queries']:,} test queries of {facts['collection']} ({facts['num_documents']:,} documents); "
        f"the retriever's top {facts['depth']} reranked by {facts['model']}{mix}.{_graded(facts)}"
    )


def _graded(facts: Mapping[str, Any]) -> str:
    level = facts.get("relevance_level", 1)
    return "" if level == 1 else f" Binary measures count a document as relevant from a judgement of {level} on."


def speed_note(speed: Mapping[str, Any], depth: int) -> str:
    """What it took, in two sentences."""
    stages = ", ".join(f"{name} {ms} ms" for name, ms in speed["retrieval_ms_per_query"].items())
    latency = speed["rerank_latency_ms"]
    alone = f" One query with {depth} documents, alone: {latency} ms (median)." if latency is not None else ""
    return (
        f"{speed['pairs']:,} pairs at {speed['pairs_per_second']} pairs/s on {speed['workers']} workers.{alone} "
        f"First stage, a query of one large batch: {stages}."
    )


def reproduce(report: Report) -> str:
    """Commands that check the figures with another tool and run the stage again."""
    official = " ".join(
        f"'{parse(measure, report.collection.relevance_level)}'" for measure in report.comparison.measures
    )
    return (
        f"# in this folder: the same figures from the run file alone\n"
        f"ir_measures qrels.trec runs/reranked.trec {official}\n"
        f"ranker compare runs/{BASELINE}.trec runs/reranked.trec --qrels qrels.trec\n"
        f"# again, from the stages before it\n"
        f"ranker evaluate experiment.yaml"
    )


def versions(packages: Mapping[str, str]) -> str:
    """``ranker 0.1.0, torch 2.13.0 ...``."""
    return ", ".join(f"{name} {version}" for name, version in packages.items())


def excerpt(text: str) -> str:
    """The beginning of a document on one line."""
    line = one_line(text)
    return line if len(line) <= EXCERPT else f"{line[:EXCERPT].rsplit(' ', 1)[0]} …"


def one_line(text: str) -> str:
    """White space as single blanks."""
    return " ".join(text.split())


def rank_or_none(rank: int | None) -> str:
    """A rank as text; ``none`` where the list does not hold the document."""
    return "none" if rank is None else str(rank)


def side(difference: float) -> str:
    """``up`` or ``down``: the colour of a change."""
    return "up" if difference >= 0 else "down"
