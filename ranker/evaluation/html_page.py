"""The report as one HTML file that needs no other file and no network."""

import base64
from collections.abc import Mapping
from html import escape
from importlib.resources import files

from ranker.evaluation.changes import Move, QueryChange
from ranker.evaluation.comparison import Comparison
from ranker.evaluation.findings import (
    BASELINE,
    TEST_HEADS,
    TEST_NOTE,
    Report,
    count_notes,
    excerpt,
    letter_note,
    rank_or_none,
    reproduce,
    side,
    significant_letters,
    speed_note,
    subtitle,
    system_letters,
    test_rows,
    versions,
)
from ranker.evaluation.plots import change_plot


def html_report(report: Report, gains: list[QueryChange], losses: list[QueryChange]) -> str:
    """One HTML page that needs no other file and no network, light or dark as the reader's system is."""
    sections = [
        _html_head(report),
        _html_systems(report),
        _html_plot(report),
        _html_tests(report.comparison),
        "<h2>Queries that changed most</h2>",
        _html_changes("Better", gains, report.measure),
        _html_changes("Worse", losses, report.measure),
        _html_speed(report),
        f"<h2>Check it, run it again</h2><pre><code>{escape(reproduce(report))}</code></pre>",
        f"<p class=faint>{escape(versions(report.packages))}</p>",
    ]
    style = files("ranker.evaluation").joinpath("report.css").read_text("utf-8")
    title = escape(str(report.facts["experiment"]))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: evaluation</title><style>\n{style}</style></head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _html_head(report: Report) -> str:
    facts, comparison, measure = report.facts, report.comparison, report.measure
    means = comparison.means()
    test = comparison.tests[BASELINE][measure]
    figures = [
        (f"{measure}, reranked", f"{means[comparison.system][measure]:.4f}"),
        (f"{measure}, {BASELINE}", f"{means[BASELINE][measure]:.4f}"),
        ("change", f'<span class="{side(test.difference)}">{test.difference:+.4f}</span>'),
        ("p, corrected", f"{test.p_corrected:.2g}"),
        ("better, same, worse", f"{test.wins} · {test.ties} · {test.losses}"),
    ]
    cells = "".join(f"<div><span class=faint>{escape(name)}</span><b>{value}</b></div>" for name, value in figures)
    return (
        f"<h1>{escape(str(facts['experiment']))}</h1><p class=faint>{escape(subtitle(facts))}</p>"
        f"<div class=headline>{cells}</div>"
    )


def _html_systems(report: Report) -> str:
    comparison = report.comparison
    means, letters = comparison.means(), system_letters(comparison)
    rows = []
    for system, values in means.items():
        cells = "".join(_html_cell(comparison, system, measure, letters) for measure in values)
        letter = f" <span class=faint>{letters[system]}</span>" if system in letters else ""
        rows.append(f"<tr><td>{escape(system)}{letter}</td>{cells}</tr>")
    heads = "".join(f"<th>{escape(measure)}</th>" for measure in comparison.measures)
    notes = ". ".join([letter_note(letters), *count_notes(comparison)])
    return (
        f"<h2>Systems</h2><div class=scroll><table><thead><tr><th>system</th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div><p class=faint>{escape(notes)}</p>"
    )


def _html_cell(comparison: Comparison, system: str, measure: str, letters: Mapping[str, str]) -> str:
    value = f"{comparison.scores[system].means[measure]:.4f}"
    value = f"<b>{value}</b>" if system in comparison.best(measure) else value
    if system == comparison.system:
        better, worse = significant_letters(comparison, measure, letters)
        value += f"<sup>{better}</sup>" if better else ""
        value += f"<sup class=worse>&minus;{worse}</sup>" if worse else ""
    return f"<td>{value}</td>"


def _html_plot(report: Report) -> str:
    change = report.comparison.change(BASELINE, report.measure)
    light, dark = (
        base64.b64encode(
            change_plot(change, report.measure, BASELINE, report.comparison.system, dark=night)
        ).decode()
        for night in (False, True)
    )  # fmt: skip
    alt = escape(f"Change of {report.measure} for each query, sorted, reranked against {BASELINE}")
    return (
        "<h2>Every query</h2><figure><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">'
        f'<img alt="{alt}" src="data:image/png;base64,{light}"></picture></figure>'
    )


def _html_tests(comparison: Comparison) -> str:
    rows = "".join(
        f"<tr><td>{escape(row[0])}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in test_rows(comparison)
    )
    heads = "".join(f"<th>{escape(head)}</th>" for head in TEST_HEADS)
    return (
        f"<h2>Is the change real?</h2><div class=scroll><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody>"
        f"</table></div><p class=faint>{escape(TEST_NOTE)}</p>"
    )


def _html_changes(title: str, changes: list[QueryChange], measure: str) -> str:
    if not changes:
        return f"<p class=faint>{title}: no query.</p>"
    return f"<h3>{title}</h3>" + "".join(_html_change(change, measure) for change in changes)


def _html_change(change: QueryChange, measure: str) -> str:
    difference = change.after - change.before
    items = "".join(
        f"<li><span class=rank>{rank_or_none(move.before)} → <b>{rank_or_none(move.after)}</b></span>"
        f"<span>{_html_relevance(move)}{escape(excerpt(move.text))} "
        f"<span class=faint>{escape(move.doc_id)}</span></span></li>"
        for move in change.moves
    )
    return (
        f'<details><summary><span class="{side(difference)}">{difference:+.3f}</span>{escape(change.query)}</summary>'
        f"<p class=faint>{escape(measure)} {change.before:.3f} → {change.after:.3f}, query {escape(change.query_id)}; "
        f"rank before → after</p><ol class=moves>{items}</ol></details>"
    )


def _html_relevance(move: Move) -> str:
    return f"<span class=relevant>relevant {move.relevance}</span> " if move.relevance else ""


def _html_speed(report: Report) -> str:
    return f"<h2>Speed</h2><p>{escape(speed_note(report.speed, report.facts['depth']))}</p>"
