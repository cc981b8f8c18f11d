"""The evaluation on one page, in two forms."""

from pathlib import Path

from ranker.evaluation.changes import most_changed
from ranker.evaluation.findings import Report, pictures
from ranker.evaluation.html_page import html_report
from ranker.evaluation.markdown_page import markdown_report
from ranker.evaluation.pictures import as_png
from ranker.manifest import write_text

__all__ = ["Report", "write_report"]


def write_report(folder: Path, report: Report, num_changed: int = 5) -> None:
    """Write ``report.html``, and ``report.md`` with its pictures as PNG files, into ``folder``."""
    gains, losses = most_changed(
        report.comparison, report.runs, report.qrels, collection=report.collection, count=num_changed
    )
    for picture in pictures(report):
        (folder / picture.name).write_bytes(as_png(picture.draw))
    write_text(folder / "report.html", html_report(report, gains, losses))
    write_text(folder / "report.md", markdown_report(report, gains, losses))
