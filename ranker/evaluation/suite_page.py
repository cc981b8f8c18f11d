"""The page of a suite: every collection, and the mean."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ranker.evaluation.html_page import html_page
from ranker.evaluation.markdown_page import markdown_table
from ranker.manifest import write_text


def write_suite_pages(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write ``report.html`` and ``report.md``: a table a measure, one row a collection, the mean last.

    Args:
        metrics: of a suite, as in its ``metrics.json``.
    """
    systems = list(metrics["means"])
    sections = [f"<h1>{escape(metrics['experiment'])}</h1><p class=faint>{escape(_subtitle(metrics))}</p>"]
    lines = [f"# {metrics['experiment']}", "", _subtitle(metrics)]
    for measure in next(iter(metrics["means"].values())):
        rows = [[name, *_cells(found, systems, measure)] for name, found in metrics["by_collection"].items()]
        mean = ["mean", *_cells(metrics["means"], systems, measure)]
        sections.append(f"<h2>{escape(measure)}</h2>{_html_table(systems, rows, mean)}")
        lines += ["", f"## {measure}", "", *markdown_table(["collection", *systems], [*rows, mean])]
    note = "Bold: the best of a row. The mean is over collections, each counting the same."
    write_text(folder / "report.html", html_page(metrics["experiment"], [*sections, f"<p class=faint>{note}</p>"]))
    write_text(folder / "report.md", "\n".join([*lines, "", note, ""]))


def _subtitle(metrics: Mapping[str, Any]) -> str:
    asked = sum(metrics["num_queries"].values())
    return f"{len(metrics['collections'])} collections, {asked:,} judged queries; {', '.join(metrics['models'])}"


def _cells(found: Mapping[str, Mapping[str, float]], systems: list[str], measure: str) -> list[str]:
    values = {system: found[system][measure] for system in systems}
    best = max(values.values())
    return [f"**{value:.4f}**" if value >= best - 1e-12 else f"{value:.4f}" for value in values.values()]


def _html_table(systems: list[str], rows: list[list[str]], mean: list[str]) -> str:
    head = "".join(f"<th>{escape(system)}</th>" for system in systems)
    body = []
    for row in [*rows, mean]:
        first = f"<b>{row[0]}</b>" if row is mean else f'<a href="{escape(row[0])}/report.html">{escape(row[0])}</a>'
        cells = "".join(f"<td>{cell.replace('**', '<b>', 1).replace('**', '</b>', 1)}</td>" for cell in row[1:])
        body.append(f"<tr><td class=word>{first}</td>{cells}</tr>")
    return (
        f"<div class=scroll><table><thead><tr><th class=word>collection</th>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
