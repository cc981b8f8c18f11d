"""The page itself: light or dark as the reader's system is, on a phone as on a wide screen."""

from html import escape
from importlib.resources import files
from pathlib import Path

from ranker.manifest import write_text
from ranker.tuning.report.charts import (
    history_chart,
    importance_chart,
    intermediate_chart,
    parallel_chart,
    pareto_chart,
    seeds_chart,
)
from ranker.tuning.report.facts import SweepReport, overhead, picked, query_test, subtitle
from ranker.tuning.report.importance import importances
from ranker.tuning.report.tables import settings_table, trials_rows
from ranker.tuning.trials import pareto_front

# With fewer trials a share of the variance is a guess.
ENOUGH_FOR_IMPORTANCE = 20


REPORT = "report.html"


def write_report(folder: Path, report: SweepReport) -> None:
    """Write ``report.html`` into ``folder``, whole or not at all."""
    write_text(folder / REPORT, html_page(report))


def html_page(report: SweepReport) -> str:
    """One HTML page that needs no other file and no network."""
    style = files("ranker.evaluation").joinpath("report.css").read_text("utf-8")
    style += files("ranker.tuning.report").joinpath("sweep.css").read_text("utf-8")
    script = files("ranker.tuning.report").joinpath("sweep.js").read_text("utf-8")
    title = escape(report.config.name)
    sections = [
        _head(report),
        _chance(report),
        settings_table(report),
        _history(report),
        _intermediate(report),
        _parallel(report),
        _importance(report),
        _pareto(report),
        trials_rows(report),
        _again(report),
        '<p id="pointed" class="pointed" hidden></p>',
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: sweep</title><style>\n{style}</style></head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + f"\n<script>\n{script}</script>\n</body></html>\n"
    )


def _head(report: SweepReport) -> str:
    figures = [(f"dev {report.metric}, best trial", f"{report.best.value:.4f}")]
    for where, gain in report.gains.items():
        side = "up" if gain.gain > 0 else "down"
        figures.append(
            (f"{where} {report.metric} against the default", f'<span class="{side}">{gain.gain:+.4f}</span>')
        )
    if report.best.latency_ms is not None:
        figures.append(("milliseconds a query", f"{report.best.latency_ms:.1f}"))
    figures.append(("trials", str(len(report.trials))))
    cells = "".join(f"<div><span class=faint>{escape(name)}</span><b>{value}</b></div>" for name, value in figures)
    return (
        f"<h1>{escape(report.config.name)}: sweep</h1><p class=faint>{escape(subtitle(report))}</p>"
        f"<div class=headline>{cells}</div>"
    )


def _chance(report: SweepReport) -> str:
    said = [gain.verdict(report.metric, where) for where, gain in report.gains.items()]
    if not report.repeats:
        said.append(
            "Nothing was repeated with other seeds (tune.num_seeds: 0), and nothing measured on test: how much of the "
            "gain is chance is not known."
        )
    elif "test" not in report.gains:
        said.append("There were no test queries with an index beside them: nothing is known but dev, which decided.")
    test = query_test(report)
    if test is not None:
        said.append(
            f"Over the test queries, each averaged over the seeds: {test.difference:+.4f} (95% from {test.low:+.4f} to "
            f"{test.high:+.4f}), p = {test.p_randomisation:.2g} by randomisation; better on {test.wins}, worse on "
            f"{test.losses}, equal on {test.ties} queries."
        )
    if (luck := picked(report)) is not None:
        said.append(luck)
    failed = [told for told in report.repeats if told.error]
    said += [f"{told.who} with seed {told.seed} failed: {told.error}" for told in failed]
    chart = seeds_chart(report.gains, report.metric)
    figure = f"<figure>{chart}<figcaption>A dot a seed; the bar is their mean.</figcaption></figure>" if chart else ""
    return f"<h2>Is it better, or luck?</h2>{''.join(f'<p>{escape(words)}</p>' for words in said)}{figure}"


def _figure(title: str, chart: str | None, caption: str) -> str:
    if chart is None:
        return ""
    return f"<h2>{escape(title)}</h2><figure>{chart}<figcaption>{caption}</figcaption></figure>"


def _key(*kinds: tuple[str, str]) -> str:
    return " ".join(f'<span class="key {kind}">{escape(words)}</span>' for kind, words in kinds)


def _history(report: SweepReport) -> str:
    keys = _key(("best", "best"), ("finished", "finished"), ("stopped", "stopped early"), ("failed", "no value"))
    return _figure(
        "Optimisation history",
        history_chart(report.trials, report.best, report.metric),
        f"{keys} The line is the best so far.",
    )


def _intermediate(report: SweepReport) -> str:
    keys = _key(("best", "best"), ("finished", "finished"), ("stopped", "stopped early, with a cross at its end"))
    return _figure("While they trained", intermediate_chart(report.trials, report.best, report.metric), keys)


def _parallel(report: SweepReport) -> str:
    chart = parallel_chart(report.trials, report.best, report.varied, report.metric, report.endless)
    return _figure(
        "Settings and what they gave",
        chart,
        "A line a trial; the better, the darker. Point at one to find it elsewhere.",
    )


def _importance(report: SweepReport) -> str:
    shares = importances(report.trials, report.varied, report.config.seed)
    finished = len(report.with_status("finished"))
    caption = f"Share of the variance among {finished} finished trials that each setting explains (fANOVA)."
    if finished < ENOUGH_FOR_IMPORTANCE:
        caption += " So few trials give no more than a hint."
    return _figure("What mattered", importance_chart(shares), caption)


def _pareto(report: SweepReport) -> str:
    front = pareto_front(report.trials)
    names = ", ".join(str(trial.number) for trial in front)
    keys = _key(("best", "best"), ("finished", "on the front"), ("faint-dot", "beaten in both"))
    caption = f"{keys} On the front, the fastest first: trial{'s' if len(front) > 1 else ''} {names}."
    return _figure("Quality against speed", pareto_chart(report.trials, report.best, report.metric), caption)


def _again(report: SweepReport) -> str:
    folder = report.config.tune.output_dir or f"{report.config.output_dir}/sweep"
    command = f"ranker train {folder}/best.yaml   # the best trial again\n"
    command += f"ranker retrain EXPERIMENT.yaml --source {folder}   # its recipe on all data"
    cost = overhead(report)
    versions = ", ".join(f"{name} {version}" for name, version in report.packages.items())
    return (
        f"<h2>Again</h2><pre><code>{escape(command)}</code></pre>{f'<p>{escape(cost)}</p>' if cost else ''}"
        f"<p class=faint>{escape(versions)}</p>"
    )
