"""The report as one HTML file that needs no other file and no network."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from ranker.evaluation.changes import QueryChange
from ranker.evaluation.comparison import Comparison
from ranker.evaluation.findings import (
    COUNT_HEADS,
    COUNT_NOTE,
    SPEED_HEADS,
    TEST_HEADS,
    Report,
    beaten,
    count_rows,
    excerpt,
    letter_note,
    pictures,
    rank_or_none,
    relevance_word,
    reproduce,
    side,
    speed_note,
    speed_rows,
    subtitle,
    system_letters,
    test_note,
    test_rows,
    versions,
)
from ranker.evaluation.pictures import as_svg


def html_report(report: Report, gains: list[QueryChange], losses: list[QueryChange]) -> str:
    """One HTML page that needs no other file and no network, light or dark as the reader's system is."""
    comparison = report.comparison
    sections = [_head(report), _systems(comparison)]
    sections += [
        f"<h2>{escape(each.title)}</h2><figure>{as_svg(each.draw, escape(each.alt, quote=True))}</figure>"
        for each in pictures(report)
    ]
    if comparison.pairs:
        sections.append(_tests(comparison))
    sections.append(
        f"<h2>Queries that changed most: {escape(comparison.system)} against {escape(comparison.baseline)}</h2>"
    )
    sections += [_changes("Better", gains, report.measure), _changes("Worse", losses, report.measure)]
    if report.speed is not None:
        sections.append("<h2>Speed</h2>" + html_table(SPEED_HEADS, speed_rows(report.rerankers)))
        sections.append(f"<p class=faint>{escape(speed_note(report.speed))}</p>")
    sections.append(f"<h2>Check it, run it again</h2><pre><code>{escape(reproduce(report))}</code></pre>")
    sections.append(f"<p class=faint>{escape(versions(report.packages))}</p>")
    return html_page(str(report.facts["experiment"]), sections)


def html_page(title: str, sections: Sequence[str]) -> str:
    """A whole page with its style."""
    style = files("ranker.evaluation").joinpath("report.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: evaluation</title><style>\n{style}</style></head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table that scrolls in itself where the page is narrow; the first ``words`` columns are text."""

    def cell(kind: str, place: int, text: str) -> str:
        return f"<{kind}{' class=word' if place < words else ''}>{escape(text)}</{kind}>"

    head = "".join(cell("th", place, text) for place, text in enumerate(heads))
    body = "".join(f"<tr>{''.join(cell('td', place, text) for place, text in enumerate(row))}</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def html_details(summary: str, inner: str) -> str:
    """Something that opens when it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"


def _tests(comparison: Comparison) -> str:
    """The tests of the first measure, and behind them those of the others."""
    rows, first = test_rows(comparison), comparison.measures[0]
    shown = html_table(TEST_HEADS, [row for row in rows if row[2] == first], words=3)
    others = [row for row in rows if row[2] != first]
    more = html_details("By the other measures", html_table(TEST_HEADS, others, words=3)) if others else ""
    return f"<h2>Is the change real?</h2>{shown}<p class=faint>{escape(test_note(comparison))}</p>{more}"


def _head(report: Report) -> str:
    facts, comparison, measure = report.facts, report.comparison, report.measure
    system, baseline = comparison.system, comparison.baseline
    figures = [
        (f"{measure}, {system}", f"{report.mean(system):.4f}"),
        (f"{measure}, {baseline}", f"{report.mean(baseline):.4f}"),
    ]
    test = comparison.pairs.get((baseline, system), {}).get(measure)
    if test is not None:
        change = f'<span class="{side(test.difference)}">{test.difference:+.4f}</span>'
        figures += [
            ("change", f"{change}<small>{test.low:+.3f} to {test.high:+.3f}</small>"),
            ("p, corrected", f"{test.p_corrected:.2g}"),
            ("better, same, worse", f"{test.wins} · {test.ties} · {test.losses}"),
        ]
    cells = "".join(f"<div><span class=faint>{escape(name)}</span><b>{value}</b></div>" for name, value in figures)
    return (
        f"<h1>{escape(str(facts['experiment']))}</h1><p class=faint>{escape(subtitle(report))}</p>"
        f"<div class=headline>{cells}</div>"
    )


def _systems(comparison: Comparison) -> str:
    letters = system_letters(comparison)
    rows = []
    for system in comparison.scores:
        cells = "".join(_cell(comparison, system, measure, letters) for measure in comparison.measures)
        rows.append(f"<tr><td class=word>{escape(system)} <span class=faint>{letters[system]}</span></td>{cells}</tr>")
    heads = "".join(f"<th>{escape(measure)}</th>" for measure in comparison.measures)
    counts = html_table(COUNT_HEADS, count_rows(comparison))
    notes = f"<p class=faint>{escape(letter_note(comparison))}.</p>" + html_details(
        "What was counted, and how", f"{counts}<p class=faint>{COUNT_NOTE}</p>"
    )
    return (
        f"<h2>Systems</h2><div class=scroll><table><thead><tr><th class=word>system</th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{notes}"
    )


def _cell(comparison: Comparison, system: str, measure: str, letters: Mapping[str, str]) -> str:
    value = f"{comparison.scores[system].means[measure]:.4f}"
    value = f"<b>{value}</b>" if system in comparison.best(measure) else value
    marks = beaten(comparison, system, measure, letters)
    return f"<td>{value}{f'<sup>{marks}</sup>' if marks else ''}</td>"


def _changes(title: str, changes: list[QueryChange], measure: str) -> str:
    if not changes:
        return f"<p class=faint>{title}: no query.</p>"
    return f"<h3>{title}</h3>" + "".join(_change(change, measure) for change in changes)


def _change(change: QueryChange, measure: str) -> str:
    difference = change.after - change.before
    items = []
    for move in change.moves:
        word = relevance_word(move.relevance)
        mark = f"<span class={'relevant' if (move.relevance or 0) > 0 else 'judged'}>{word}</span> " if word else ""
        items.append(
            f"<li><span class=rank>{rank_or_none(move.before)} → <b>{rank_or_none(move.after)}</b></span>"
            f"<span>{mark}{escape(excerpt(move.text))} <span class=faint>{escape(move.doc_id)}</span></span></li>"
        )
    query = change.query or f"query {change.query_id}"
    return (
        f'<details><summary><span class="{side(difference)}">{difference:+.3f}</span>{escape(query)}</summary>'
        f"<p class=faint>{escape(measure)} {change.before:.3f} → {change.after:.3f}, query {escape(change.query_id)}; "
        f"rank before → after</p><ol class=moves>{''.join(items)}</ol></details>"
    )
