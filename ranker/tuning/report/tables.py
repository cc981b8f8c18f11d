"""The tables of the page: the best settings beside the experiment's own, and every trial."""

import math
from html import escape

from ranker.tuning.report.facts import SweepReport
from ranker.tuning.trials import Trial, last_line, short

# Characters of a failure's reason in the table; the rest is in trials.parquet.
REASON = 160


def settings_table(report: SweepReport) -> str:
    """What the best trial changes."""
    rows = "".join(
        f"<tr><td><code>{escape(path)}</code></td><td>{escape(short(report.own(path)))}</td>"
        f"<td><b>{escape(short(value))}</b></td></tr>"
        for path, value in report.best.overrides.items()
    )
    return (
        "<h2>The best settings</h2><div class=scroll><table><thead><tr><th>setting</th><th>experiment</th><th>best</th>"
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def trials_rows(report: SweepReport) -> str:
    """Every trial, the best first; failures with their reason."""
    timed = any(trial.latency_ms is not None for trial in report.trials)
    paths = report.varied
    heads = [
        "trial",
        report.metric,
        "ended",
        "seconds",
        *(["ms"] if timed else []),
        *(p.rpartition(".")[2] for p in paths),
    ]
    ordered = sorted(report.trials, key=lambda trial: (-trial.score, trial.number))
    rows = "".join(_row(trial, report, paths, timed) for trial in ordered)
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    failed = report.with_status("failed")
    reasons = "".join(
        f"<li>trial {trial.number}: {escape(last_line(trial.error or 'no reason known')[:REASON])}</li>"
        for trial in failed
    )
    why = f"<h3>Why trials failed</h3><ul>{reasons}</ul>" if failed else ""
    return (
        f"<h2>Every trial</h2><div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"</div><p class=faint>The same with all settings, measurements and reasons: trials.parquet</p>{why}"
    )


def _row(trial: Trial, report: SweepReport, paths: list[str], timed: bool) -> str:
    value = "" if math.isnan(trial.value) else f"{trial.value:.4f}"
    cells = [
        f"<b>{value}</b>" if trial is report.best else value,
        f'<span class="key {trial.status}">{trial.status}</span>',
        "" if trial.seconds is None else f"{trial.seconds:.0f}",
        *(["" if trial.latency_ms is None else f"{trial.latency_ms:.1f}"] if timed else []),
        *(escape(short(trial.overrides[path])) if path in trial.overrides else "" for path in paths),
    ]
    return (
        f'<tr data-trial="{trial.number}"><td>{trial.number}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
    )
