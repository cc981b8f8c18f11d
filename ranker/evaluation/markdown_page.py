"""The report in Markdown: it can be pasted into an issue or a model card."""

from collections.abc import Mapping

from ranker.evaluation.changes import QueryChange
from ranker.evaluation.comparison import Comparison
from ranker.evaluation.findings import (
    TEST_HEADS,
    TEST_NOTE,
    Report,
    count_notes,
    excerpt,
    letter_note,
    one_line,
    rank_or_none,
    reproduce,
    significant_letters,
    speed_note,
    subtitle,
    system_letters,
    test_rows,
    versions,
)


def markdown_report(report: Report, gains: list[QueryChange], losses: list[QueryChange]) -> str:
    """The same page in Markdown, the plot as a link to ``change.png``."""
    comparison, facts = report.comparison, report.facts
    letters = system_letters(comparison)
    lines = [f"# {facts['experiment']}", "", subtitle(facts), "", "## Systems", ""]
    lines += _markdown_table(["system", *comparison.measures], _markdown_systems(comparison, letters))
    lines += [
        "",
        ". ".join([letter_note(letters), *count_notes(comparison)]),
        "",
        "![change of every query](change.png)",
        "",
    ]
    lines += [
        "## Is the change real?",
        "",
        *_markdown_table(list(TEST_HEADS), test_rows(comparison)),
        "",
        TEST_NOTE,
        "",
    ]
    lines += ["## Queries that changed most", ""]
    for change in [*gains, *losses]:
        lines += _markdown_change(change)
    lines += ["## Speed", "", speed_note(report.speed, facts["depth"]), ""]
    lines += ["## Check it, run it again", "", "```", reproduce(report), "```", "", versions(report.packages), ""]
    return "\n".join(lines)


def _markdown_systems(comparison: Comparison, letters: Mapping[str, str]) -> list[list[str]]:
    rows = []
    for system, means in comparison.means().items():
        row = [f"{system} ({letters[system]})" if system in letters else system]
        for measure, mean in means.items():
            cell = f"**{mean:.4f}**" if system in comparison.best(measure) else f"{mean:.4f}"
            if system == comparison.system:
                better, worse = significant_letters(comparison, measure, letters)
                cell += f" {better}" * bool(better) + f" -{worse}" * bool(worse)
            row.append(cell)
        rows.append(row)
    return rows


def _markdown_table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _markdown_change(change: QueryChange) -> list[str]:
    lines = [f"**{change.after - change.before:+.3f}** {one_line(change.query)} ({change.query_id})", ""]
    for move in change.moves:
        mark = f"**relevant {move.relevance}** " if move.relevance else ""
        lines.append(
            f"- {rank_or_none(move.before)} → {rank_or_none(move.after)}: {mark}{excerpt(move.text)} (`{move.doc_id}`)"
        )
    return [*lines, ""]
