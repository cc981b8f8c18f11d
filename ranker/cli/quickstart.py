"""`ranker quickstart`: the pipeline on the documentation of this Python installation, told as a story."""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import ranker
from ranker.cli.stages import DOORS, PIPELINE, finished, open_door
from ranker.config import Experiment
from ranker.manifest import Done, StageError, write_text
from ranker.schemas import RUN, Collection, read_table
from ranker.session import one_cluster

NUM_QUESTIONS = 3
NUM_SHOWN = 3
NAME_WIDTH = 44


def shipped(name: str) -> Path:
    """An experiment file that ships: beside the package in a checkout, inside it once installed."""
    package = Path(ranker.__file__).parent
    for folder in (package.parent / "jobs", package / "jobs"):
        if (folder / name).is_file():
            return folder / name
    raise StageError(f"{name}: not found beside the package; reinstall ranker, or name a file of your own")


class Question(NamedTuple):
    """A test query with its best documents before and after reranking.

    ``right`` holds the judged documents; ``place`` the best rank of one of them before and after, None where the list
    has none.
    """

    text: str
    right: frozenset[str]
    before: list[str]
    after: list[str]
    place: tuple[int | None, int | None]


def run_quickstart(config: Experiment, console: Console) -> None:
    """Walk through every stage, then show the figures, three questions, and where everything is."""
    start = time.monotonic()
    steps: list[Done] = []
    with one_cluster():
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
    """A seeded draw from the test queries whose right answer came into, left, or moved in the lists that are shown."""
    folder = config.folder("evaluate") / "runs"
    before, after = (_ranked(read_table(folder / f"{name}.parquet", RUN)) for name in ("retriever", "reranked"))
    collection = _test_collection(config)
    texts = dict(zip(*(collection.queries[name].to_pylist() for name in ("query_id", "text")), strict=True))
    right: dict[str, set[str]] = {}
    for row in collection.relevant().to_pylist():
        right.setdefault(row["query_id"], set()).add(row["doc_id"])
    places = {
        query: (_place(before[query], right[query]), _place(after[query], right[query])) for query in sorted(after)
    }
    moved = [query for query, (was, now) in places.items() if was != now and _shown(was, now)]
    chosen = random.Random(config.seed).sample(moved, min(NUM_QUESTIONS, len(moved)))
    return [
        Question(texts[q], frozenset(right[q]), before[q][:NUM_SHOWN], after[q][:NUM_SHOWN], places[q]) for q in chosen
    ]


def _test_collection(config: Experiment) -> Collection:
    from ranker.data.catalog import open_collection

    return open_collection(config.folder("data"), "test")


def _ranked(run: pa.Table) -> dict[str, list[str]]:
    frame = run.to_pandas().sort_values(["query_id", "rank"])
    return {str(query): list(rows) for query, rows in frame.groupby("query_id")["doc_id"]}


def _shown(*places: int | None) -> bool:
    return any(place is not None and place <= NUM_SHOWN for place in places)


def _place(ranked: list[str], right: set[str]) -> int | None:
    return next((rank for rank, doc in enumerate(ranked, start=1) if doc in right), None)


def _titles(config: Experiment, questions: Sequence[Question]) -> dict[str, str]:
    wanted = {doc for question in questions for doc in (*question.before, *question.after)}
    texts = _test_collection(config).texts(wanted)
    return {doc: _shorten(texts[doc]) for doc in wanted}


def _shorten(text: str, width: int = 110) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def moves(question: Question) -> str:
    """``right answer: 4th place before, 1st after`` in figures."""
    was, now = (f"place {place}" if place else "not found" for place in question.place)
    return f"right answer: {was} before, {now} after"


def question_table(question: Question, texts: dict[str, str]) -> Table:
    """Both lists side by side, right answers marked."""
    title = f"[bold]{escape(question.text)}[/bold]  ({moves(question)})"
    table = Table(title=title, title_justify="left", title_style="", show_lines=True, expand=True)
    table.add_column("", width=1)
    for heading in ("retriever alone", "reranked"):
        table.add_column(heading, ratio=1, overflow="fold")
    for rank, pair in enumerate(zip(question.before, question.after, strict=False), start=1):
        cells = [_cell(doc, question, texts) for doc in pair]
        table.add_row(str(rank), *cells)
    return table


def _cell(doc: str, question: Question, texts: dict[str, str]) -> str:
    name = escape(doc if len(doc) <= NAME_WIDTH else f"…{doc[1 - NAME_WIDTH :]}")  # the end says more than the start
    text = escape(texts[doc])
    return f"[bold green]✓ {name}\n{text}[/bold green]" if doc in question.right else f"[dim]{name}[/dim]\n{text}"


def questions_markdown(questions: Sequence[Question], texts: dict[str, str]) -> str:
    """The same as a file."""
    lines = [
        "# Before and after reranking",
        "",
        "Drawn at random from the test queries whose right answer changed its place, for better or worse.",
    ]
    for question in questions:
        lines += ["", f"## {question.text}", "", f"{moves(question)}", ""]
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
