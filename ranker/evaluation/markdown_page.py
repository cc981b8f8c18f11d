"""The report in Markdown: it can be pasted into an issue or a model card."""

from collections.abc import Sequence

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
    one_line,
    pictures,
    rank_or_none,
    relevance_word,
    reproduce,
    speed_note,
    speed_rows,
    subtitle,
    system_letters,
    test_note,
    test_rows,
    versions,
)


def markdown_report(report: Report, gains: list[QueryChange], losses: list[QueryChange]) -> str:
    """The same page in Markdown, the pictures as links to their files."""
    comparison = report.comparison
    lines = [f"# {report.facts['experiment']}", "", subtitle(report), "", "## Systems", ""]
    lines += [
        *markdown_table(["system", *comparison.measures], _systems(comparison)),
        "",
        f"{letter_note(comparison)}.",
        "",
    ]
    lines += [*markdown_table(COUNT_HEADS, count_rows(comparison)), "", COUNT_NOTE]
    for picture in pictures(report):
        lines += ["", f"![{picture.alt}]({picture.name})"]
    if comparison.pairs:
        lines += ["", "## Is the change real?", "", *markdown_table(TEST_HEADS, test_rows(comparison)), ""]
        lines.append(test_note(comparison))
    lines += ["", f"## Queries that changed most: {comparison.system} against {comparison.baseline}", ""]
    for change in [*gains, *losses]:
        lines += _change(change)
    if report.speed is not None:
        lines += ["## Speed", "", *markdown_table(SPEED_HEADS, speed_rows(report.rerankers)), ""]
        lines += [speed_note(report.speed), ""]
    lines += ["## Check it, run it again", "", "```", reproduce(report), "```", "", versions(report.packages), ""]
    return "\n".join(lines)


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, numbers to the right."""
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _systems(comparison: Comparison) -> list[list[str]]:
    letters = system_letters(comparison)
    rows = []
    for system, means in comparison.means().items():
        row = [f"{system} ({letters[system]})"]
        for measure, mean in means.items():
            cell = f"**{mean:.4f}**" if system in comparison.best(measure) else f"{mean:.4f}"
            marks = beaten(comparison, system, measure, letters)
            row.append(f"{cell} {marks}" if marks else cell)
        rows.append(row)
    return rows


def _change(change: QueryChange) -> list[str]:
    lines = [f"**{change.after - change.before:+.3f}** {one_line(change.query)} ({change.query_id})", ""]
    for move in change.moves:
        word = relevance_word(move.relevance)
        mark = f"**{word}** " if word else ""
        ranks = f"{rank_or_none(move.before)} → {rank_or_none(move.after)}"
        lines.append(f"- {ranks}: {mark}{excerpt(move.text)} (`{move.doc_id}`)")
    return [*lines, ""]
