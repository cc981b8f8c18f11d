"""What a report says, in words and numbers: shared by its HTML and Markdown forms."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ranker.evaluation.again import file_name
from ranker.evaluation.comparison import Comparison
from ranker.evaluation.pictures import Draw
from ranker.evaluation.plots import change_picture, depth_picture, latency_picture
from ranker.evaluation.significance import PairedTest
from ranker.manifest import installed_packages
from ranker.measures import parse
from ranker.schemas import Collection

# Characters of a document that are shown.
EXCERPT = 240
TEST_HEADS = (
    "system", "against", "measure", "change", "95% interval", "p", "p, corrected", "p, t-test", "t-test, corrected",
    "better", "same", "worse",
)  # fmt: skip
COUNT_HEADS = (
    "system", "judged queries", "without result", "without relevant", "queries not judged", "documents", "not judged",
    "with equal scores",
)  # fmt: skip
COUNT_NOTE = (
    "Queries without a result or without a relevant document count as 0, queries that nobody judged are left out, and "
    "documents that nobody judged count as not relevant."
)
SPEED_HEADS = ("system", "documents", "pairs/s", "ms a query, p50", "p95", "queries timed")
CORRECTIONS = {"holm": "Holm", "bonferroni": "Bonferroni", "none": "none"}


@dataclass(frozen=True)
class Report:
    """All that is told.

    Args:
        facts: experiment, collection, counts, depth, model, seed. comparison: scores and tests.
        runs: system -> RUN. qrels: QRELS. collection: for texts; None: ids only.
        speed: as in metrics.json; None where nothing was scored.
        steps: shell lines that give the figures again; None: those of an evaluation's folder.
    """

    facts: dict[str, Any]
    comparison: Comparison
    runs: Mapping[str, pa.Table]
    qrels: pa.Table
    collection: Collection | None = None
    speed: Mapping[str, Any] | None = None
    packages: dict[str, str] = field(default_factory=installed_packages)
    steps: tuple[str, ...] | None = None

    @property
    def measure(self) -> str:
        """The measure that the headline, the pictures and the changed queries are about: the first."""
        return self.comparison.measures[0]

    @property
    def rerankers(self) -> list[dict[str, Any]]:
        """What each reranked system took."""
        return list((self.speed or {}).get("rerankers", []))

    def mean(self, system: str) -> float:
        """Of the first measure."""
        return self.comparison.scores[system].means[self.measure]


@dataclass(frozen=True)
class Picture:
    """A picture with its file name in Markdown and its heading."""

    name: str
    title: str
    alt: str
    draw: Draw


def pictures(report: Report) -> list[Picture]:
    """Every query; and where there are several depths or times, quality over them."""
    comparison, measure = report.comparison, report.measure
    system, baseline = comparison.system, comparison.baseline
    change = change_picture(comparison.change(baseline, measure), measure)
    alt = f"Change of {measure} for each query, sorted, {system} against {baseline}"
    found = [Picture("change.png", f"Every query: {system} against {baseline}", alt, change)]
    by_model: dict[str, list[dict[str, Any]]] = {}
    for each in report.rerankers:
        by_model.setdefault(each["system"].partition("@")[0], []).append(each)
    if any(len(some) > 1 for some in by_model.values()):
        lines = {
            name: [(each["depth"], report.mean(each["system"])) for each in some] for name, some in by_model.items()
        }
        draw = depth_picture(lines, (baseline, report.mean(baseline)), measure)
        found.append(Picture("depth.png", "Quality by depth", f"{measure} over the documents reranked", draw))
    timed = {
        name: [(each["p50_ms"], report.mean(each["system"]), f"top {each['depth']}") for each in some if each["p50_ms"]]
        for name, some in by_model.items()
    }
    if sum(map(len, timed.values())) > 1:
        draw = latency_picture({name: some for name, some in timed.items() if some}, measure)
        found.append(Picture("latency.png", "Quality against latency", f"{measure} over milliseconds a query", draw))
    return found


def test_rows(comparison: Comparison) -> list[list[str]]:
    """One row a pair and measure, under TEST_HEADS."""
    return [
        [after, before, measure, *_test_cells(test)]
        for (before, after), tests in comparison.pairs.items()
        for measure, test in tests.items()
    ]


def _test_cells(test: PairedTest) -> list[str]:
    values = (test.p_randomisation, test.p_corrected, test.p_ttest, test.p_ttest_corrected)
    counts = [str(count) for count in (test.wins, test.ties, test.losses)]
    return [f"{test.difference:+.4f}", f"{test.low:+.4f} to {test.high:+.4f}", *(f"{p:.2g}" for p in values), *counts]


def test_note(comparison: Comparison) -> str:
    """What the columns of tests are."""
    many = f"corrected for {len(comparison.pairs)} tests ({CORRECTIONS[comparison.correction]})"
    return (
        f"p: Fisher's randomisation test, two-sided, paired by query; {many}, and so is the paired t-test. "
        "Interval: percentile bootstrap over the queries."
    )


def system_letters(comparison: Comparison) -> dict[str, str]:
    """System -> a, b, ...: what stands beside a value that is significantly better."""
    letters = [chr(ord("a") + place) for place in range(26)]
    return dict(zip(comparison.scores, [*letters, *(f"{a}{b}" for a in letters for b in letters)], strict=False))


def beaten(comparison: Comparison, system: str, measure: str, letters: Mapping[str, str]) -> str:
    """Letters of the systems that ``system`` is significantly better than."""
    return " ".join(letters[name] for name in comparison.beaten_by(system, measure))


def letter_note(comparison: Comparison) -> str:
    """What bold and letters in the table mean."""
    return (
        "Bold: the best. A letter beside a value: significantly better than the system of that letter, "
        f"corrected p < 0.05 ({len(comparison.pairs)} tests)"
    )


def count_rows(comparison: Comparison) -> list[list[str]]:
    """What could be doubted about the figures: one row a system, under COUNT_HEADS."""
    return [
        [
            system, f"{c.queries:,}", f"{c.missing_queries:,}", f"{c.queries_without_relevant:,}",
            f"{c.unjudged_queries:,}", f"{c.documents:,}", f"{c.unjudged_documents:,}", f"{c.tied_documents:,}",
        ]
        for system, c in ((name, scores.counts) for name, scores in comparison.scores.items())
    ]  # fmt: skip


def subtitle(report: Report) -> str:
    """What was measured, in one line."""
    facts = report.facts
    queries = f"{facts['num_queries']:,} judged queries of {facts['collection']}"
    size = f" ({facts['num_documents']:,} documents)" if facts.get("num_documents") else ""
    level = facts.get("relevance_level", 1)
    graded = "" if level == 1 else f" Binary measures count a document as relevant from a judgement of {level} on."
    if "model" not in facts:
        return f"{queries}{size}; {len(report.runs)} runs, told against {report.comparison.baseline}.{graded}"
    mix = f", {facts['interpolation']:.2f} of the first stage's score mixed in" if facts.get("interpolation") else ""
    missed = " Relevant documents that the first stage missed were reranked too." if facts.get(
        "missed_positives_reranked") else ""  # fmt: skip
    return (
        f"{queries}{size}; the top {facts['depth']} of {report.comparison.baseline} reranked by "
        f"{facts['model']}{mix}.{graded}{missed}"
    )


def speed_note(speed: Mapping[str, Any]) -> str:
    """What scoring and retrieval took."""
    stages = ", ".join(f"{name} {ms} ms" for name, ms in speed["retrieval_ms_per_query"].items())
    first = f" First stage, a query of one large batch: {stages}." if stages else ""
    busy = f", whose engines computed {speed['engine_busy']:.0%} of the time" if speed.get("engine_busy") else ""
    return (
        f"{speed['pairs']:,} pairs at {speed['pairs_per_second']} pairs/s on {speed['workers']} workers{busy}. "
        f"Milliseconds are of one query alone on one worker.{first}"
    )


def speed_rows(rerankers: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One row a reranked system, under SPEED_HEADS."""
    return [
        [
            each["system"], str(each["depth"]), f"{each['pairs_per_second']:,}",
            *("-" if each[name] is None else f"{each[name]:,}" for name in ("p50_ms", "p95_ms")),
            str(each["timed_queries"]),
        ]
        for each in rerankers
    ]  # fmt: skip


def reproduce(report: Report) -> str:
    """Commands that check the figures with another tool and run the whole again."""
    if report.steps is not None:
        return "\n".join(report.steps)
    level = report.facts.get("relevance_level", 1)
    official = " ".join(f"'{parse(measure, level)}'" for measure in report.comparison.measures)
    system, baseline = (
        shlex.quote(f"runs/{file_name(name)}.trec") for name in (report.comparison.system, report.comparison.baseline)
    )
    rel = f" --relevance-level {level}" if level != 1 else ""
    return (
        f"# in this folder: the same figures from the run file alone\n"
        f"ir_measures qrels.trec {system} {official}\n"
        f"ranker compare {baseline} {system} --qrels qrels.trec{rel}\n"
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


def relevance_word(relevance: int | None) -> str:
    """``relevant 2``; ``judged 0``; nothing where nobody judged."""
    if relevance is None:
        return ""
    return f"relevant {relevance}" if relevance > 0 else f"judged {relevance}"


def side(difference: float) -> str:
    """``up`` or ``down``: the colour of a change."""
    return "up" if difference >= 0 else "down"
