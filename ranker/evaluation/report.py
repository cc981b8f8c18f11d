"""The evaluation on one page, in two forms."""

from pathlib import Path

from ranker.evaluation.changes import most_changed
from ranker.evaluation.findings import BASELINE, Report
from ranker.evaluation.html_page import html_report
from ranker.evaluation.markdown_page import markdown_report
from ranker.manifest import write_text

__all__ = ["Report", "write_report"]


def write_report(folder: Path, report: Report) -> None:
    """Write ``report.html`` and ``report.md`` into ``folder``."""
    gains, losses = most_changed(
        report.comparison, report.runs, report.collection.qrels, collection=report.collection, baseline=BASELINE
    )
    write_text(folder / "report.html", html_report(report, gains, losses))
    write_text(folder / "report.md", markdown_report(report, gains, losses))
