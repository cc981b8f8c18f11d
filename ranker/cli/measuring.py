"""`ranker evaluate` and `ranker compare`: an experiment's model, or runs of any tool without any model."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ranker.cli.errors import explain
from ranker.cli.progress import show_progress
from ranker.cli.stages import run as run_stage
from ranker.config import load_experiment

if TYPE_CHECKING:
    from ranker.evaluation.comparison import Comparison

Measures = Annotated[
    list[str] | None, typer.Option("--measure", help="Such as ndcg@10 or mrr(rel=2)@10; may be repeated.")
]
Level = Annotated[
    int, typer.Option(help="From which judgement on binary measures count a document as relevant; 2 in TREC DL.")
]
TieRule = Annotated[
    str, typer.Option(help="Equal scores: `score` as trec_eval and ir_measures order them; `rank` by the rank column.")
]


def evaluate(
    config_or_run: Annotated[Path, typer.Argument(help="Experiment file, or a run (TREC, MS MARCO, Parquet).")],
    qrels: Annotated[Path | None, typer.Argument(help="Judgements of that run (TREC, BEIR, Parquet).")] = None,
    measure: Measures = None,
    relevance_level: Level = 1,
    ties: TieRule = "score",
    per_query: Annotated[bool, typer.Option("--per-query", help="Also the values of every query.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override one field: evaluate.depth=100")
    ] = None,
) -> None:
    """Evaluate the experiment's model, or, without any model, a run against judgements."""
    with show_progress(), explain():
        if qrels is None:
            if config_or_run.is_file() and config_or_run.suffix not in (".yaml", ".yml"):
                raise ValueError(
                    f"{config_or_run}: is no experiment file (.yaml); to measure a run, give its judgements behind it"
                )
            chosen = [f"evaluate.measures={json.dumps(measure)}"] if measure else []
            experiment = load_experiment(config_or_run, [*(overrides or ()), *chosen])
            _write(run_stage("evaluate", experiment).summary())
            return
        if overrides:
            raise ValueError(f"--set {overrides[0]}: belongs to an experiment file; a run is measured as it is")
        from ranker.evaluation.runs import evaluate_files
        from ranker.measures import DEFAULT_MEASURES

        _write(
            evaluate_files(
                config_or_run, qrels, measure or DEFAULT_MEASURES, relevance_level=relevance_level,
                ties=_rule(ties), per_query=per_query,
            )
        )  # fmt: skip


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more runs; the first is the baseline.")],
    qrels: Annotated[Path, typer.Option(help="Judgements (TREC, BEIR, Parquet).")],
    measure: Measures = None,
    relevance_level: Level = 1,
    ties: TieRule = "score",
    baseline: Annotated[
        str | None, typer.Option(help="Name of the run that is the baseline. Default: the first.")
    ] = None,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Test every pair, not only against the baseline.")
    ] = False,
    correction: Annotated[str, typer.Option(help="For several tests: holm, bonferroni or none.")] = "holm",
    permutations: Annotated[int, typer.Option(min=100, help="Of the randomisation test and the bootstrap.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of both.")] = 13,
    changed: Annotated[int, typer.Option(min=0, help="Queries shown that rose and fell most.")] = 5,
    report: Annotated[Path | None, typer.Option(help="Folder for report.html, report.md and comparison.json.")] = None,
    texts: Annotated[
        str | None, typer.Option(help="Collection (as `ranker data` takes it) with the report's texts.")
    ] = None,
) -> None:
    """Say which run is better, by how much, for which queries, and whether it could be chance."""
    with show_progress() as console, explain():
        from ranker.evaluation.runs import Measuring, open_comparison
        from ranker.evaluation.significance import adjust

        adjust({}, correction)  # type: ignore[arg-type]  # refuses another word before anything is read
        how = Measuring(tuple(measure or ("ndcg@10",)), relevance_level, _rule(ties))
        compared = open_comparison(
            runs, qrels, how, baseline=baseline, pairs="all" if all_pairs else "first",
            correction=correction, permutations=permutations, seed=seed,  # type: ignore[arg-type]
        )  # fmt: skip
        plain = compared.as_dict(changed)
        if report is not None:
            from ranker.evaluation.compare_report import write_comparison

            write_comparison(report, compared, plain, source=texts, runs=[str(run) for run in runs], qrels=str(qrels))
        _print_table(compared.comparison, console)
        for line in tie_lines(plain.get("tie_range", {})):
            console.print(line, markup=False, highlight=False)
        _write(plain)


def _rule(ties: str) -> Any:
    if ties not in ("score", "rank"):
        raise ValueError(f"--ties {ties}: is not one of score, rank")
    return ties


def _print_table(comparison: "Comparison", console: Console) -> None:
    """Means with the best in bold, then a sentence a test of the first measure."""
    table = Table(box=None, pad_edge=False)
    table.add_column("run")
    for measure in comparison.measures:
        table.add_column(measure, justify="right")
    for system, means in comparison.means().items():
        cells = [
            f"[bold]{m:.4f}[/bold]" if system in comparison.best(name) else f"{m:.4f}" for name, m in means.items()
        ]
        table.add_row(system, *cells)
    console.print(table)
    measure = comparison.measures[0]
    for (before, after), tests in comparison.pairs.items():
        console.print(sentence(before, after, measure, vars(tests[measure])), markup=False, highlight=False)


def tie_lines(moved: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """One line a run whose equal scores could change a mean."""
    return [
        f"{run}: with its equal scores in another order, "
        + ", ".join(f"{measure} from {low:.4f} to {high:.4f}" for measure, (low, high) in ranges.items())
        for run, ranges in moved.items()
    ]


def sentence(before: str, after: str, measure: str, test: Mapping[str, Any]) -> str:
    """What a test says, in one line."""
    return (
        f"{after} against {before}: {test['difference']:+.4f} {measure} (95% from {test['low']:+.4f} to "
        f"{test['high']:+.4f}), p = {test['p_corrected']:.2g} corrected, t-test {test['p_ttest_corrected']:.2g}; "
        f"better on {test['wins']} queries, worse on {test['losses']}, equal on {test['ties']}"
    )


def _write(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
