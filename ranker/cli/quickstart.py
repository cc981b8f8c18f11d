"""`ranker quickstart`: the pipeline on the documentation of this Python installation, told as a story."""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import ranker
from ranker.cli.stages import DOORS, PIPELINE, finished, open_door
from ranker.config import Experiment
from ranker.manifest import Done, StageError, write_text
from ranker.schemas import RUN, Collection, read_table

NUM_QUESTIONS = 3
NUM_SHOWN = 3


def shipped(name: str) -> Path:
    """An experiment file that ships: beside the package in a checkout, inside it once installed."""
    package = Path(ranker.__file__).parent
    for folder in (package.parent / "jobs", package / "jobs"):
        if (folder / name).is_file():
            return folder / name
    raise StageError(f"{name}: not found beside the package; reinstall ranker, or name a file of your own")


class Question(NamedTuple):
    """A test query with its best documents before and after reranking; ``right`` holds the judged ones."""

    text: str
    right: frozenset[str]
    before: list[str]
    after: list[str]


def run_quickstart(config: Experiment, console: Console) -> None:
    """Walk through every stage, then show the figures, three questions, and where everything is."""
    start = time.monotonic()
    steps: list[Done] = []
    for number, stage in enumerate(PIPELINE, start=1):
        console.rule(f"[bold]{number}/{len(PIPELINE)} {stage}[/bold]: {DOORS[stage].purpose}", align="left")
        done = open_door(stage)(config)
        console.print(_sentence(done), markup=False, highlight=False)
        steps.append(done)
    metrics, questions = finished("evaluate", config).outcome, pick_questions(config)
    console.rule("[bold]before and after reranking[/bold]", align="left")
    texts = _titles(config, questions)
    for question in questions:
        console.print(question_table(question, texts))
    console.print(metrics_table(metrics))
    for line in verdict(metrics):
        console.print(line, markup=False, highlight=False)
    write_text(Path(config.output_dir) / "questions.md", questions_markdown(questions, texts))
    console.print(_farewell(config, steps, time.monotonic() - start), markup=False, highlight=False, soft_wrap=True)


def _sentence(done: Done) -> str:
    if done.skipped:
        return f"already done: {done.folder}"
    plain = {key: value for key, value in done.outcome.items() if isinstance(value, int | float | str)}
    said = ", ".join(
        f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in plain.items()
    )
    return f"done in {done.manifest.seconds:.0f} s: {said}"


def pick_questions(config: Experiment) -> list[Question]:
    """A seeded draw from the test queries whose best document changed: neither the best cases nor the worst."""
    folder = config.folder("evaluate") / "runs"
    before = _top(read_table(folder / "retriever.parquet", RUN))
    after = _top(read_table(folder / "reranked.parquet", RUN))
    collection = _test_collection(config)
    changed = sorted(query for query in after if before.get(query) and before[query][0] != after[query][0])
    chosen = random.Random(config.seed).sample(changed, min(NUM_QUESTIONS, len(changed)))
    texts = dict(zip(*(collection.queries[name].to_pylist() for name in ("query_id", "text")), strict=True))
    right: dict[str, set[str]] = {}
    for row in collection.qrels.to_pylist():
        if row["relevance"] > 0:
            right.setdefault(row["query_id"], set()).add(row["doc_id"])
    return [Question(texts[q], frozenset(right.get(q, ())), before[q], after[q]) for q in chosen]


def _test_collection(config: Experiment) -> Collection:
    from ranker.data.catalog import open_collection

    return open_collection(config.folder("data"), config.data.test_split)


def _top(run: "object") -> dict[str, list[str]]:
    frame = run.to_pandas().sort_values(["query_id", "rank"])  # type: ignore[attr-defined]
    return {str(query): list(rows.head(NUM_SHOWN)) for query, rows in frame.groupby("query_id")["doc_id"]}


def _titles(config: Experiment, questions: Sequence[Question]) -> dict[str, str]:
    wanted = {doc for question in questions for doc in (*question.before, *question.after)}
    texts = _test_collection(config).texts()
    return {doc: _shorten(texts[doc]) for doc in wanted}


def _shorten(text: str, width: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def question_table(question: Question, texts: dict[str, str]) -> Table:
    """Both lists side by side, right answers marked."""
    table = Table(title=f"“{question.text}”", title_justify="left", show_lines=True, expand=True)
    table.add_column("", width=1)
    table.add_column("retriever alone", ratio=1, overflow="fold")
    table.add_column("reranked", ratio=1, overflow="fold")
    for rank, pair in enumerate(zip(question.before, question.after, strict=False), start=1):
        cells = [_cell(doc, question, texts) for doc in pair]
        table.add_row(str(rank), *cells)
    return table


def _cell(doc: str, question: Question, texts: dict[str, str]) -> str:
    text = escape(f"{doc}\n{texts[doc]}")
    return f"[bold green]✓ {text}[/bold green]" if doc in question.right else text


def questions_markdown(questions: Sequence[Question], texts: dict[str, str]) -> str:
    """The same as a file."""
    lines = ["# Before and after reranking", "", "Drawn at random from the test queries whose first result changed."]
    for question in questions:
        lines += ["", f"## {question.text}", ""]
        for heading, docs in (("Retriever alone", question.before), ("Reranked", question.after)):
            lines += [f"{heading}:", ""]
            lines += [
                f"{rank}. {'✓ ' if doc in question.right else ''}`{doc}` {texts[doc]}"
                for rank, doc in enumerate(docs, start=1)
            ]
            lines.append("")
    return "\n".join(lines)


def metrics_table(metrics: dict[str, dict[str, dict[str, float]]]) -> Table:
    """One row a system, one column a measure, the best in bold."""
    means = metrics["means"]
    measures = list(next(iter(means.values())))
    best = {measure: max(values[measure] for values in means.values()) for measure in measures}
    table = Table(title="Test queries")
    table.add_column("system")
    for measure in measures:
        table.add_column(measure, justify="right")
    for system, values in means.items():
        cells = [f"[bold]{v:.4f}[/bold]" if v == best[m] else f"{v:.4f}" for m, v in values.items()]
        table.add_row(system, *cells)
    return table


def verdict(metrics: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Whether the gain could be chance, a sentence for each baseline."""
    lines = []
    for baseline, test in metrics.get("significance", {}).items():
        lines.append(
            f"reranked against {baseline}: {test['difference']:+.4f} {test['measure']} "
            f"(95% from {test['low']:+.4f} to {test['high']:+.4f}), p = {test['p_value']:.2g}, "
            f"better on {test['wins']:.0f} queries, worse on {test['losses']:.0f}, equal on {test['ties']:.0f}"
        )
    return lines


def _farewell(config: Experiment, steps: Sequence[Done], seconds: float) -> str:
    folder = Path(config.output_dir)
    head = "everything was already done" if all(step.skipped for step in steps) else f"finished in {seconds:.0f} s"
    return "\n".join(
        [
            f"{head}; {folder}/ holds",
            f"  model/       the reranker: CrossEncoder('{folder}/model') opens it too",
            "  onnx/        the same for ONNX Runtime",
            "  evaluation/  report.html, change.png, TREC runs",
            "  questions.md the questions above",
            "next: serve run serve_configs/local.yaml",
        ]
    )
