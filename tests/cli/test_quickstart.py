"""The main job at a size that fits a test: killed in the middle of training, started again, and once more when done."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import ir_measures
import pytest

from ranker.cli.quickstart import Question, metrics_table, questions_markdown, shipped, verdict
from ranker.config import load_experiment
from ranker.training.progress import LOG

SMALL = [
    "data.options.max_documents=400",
    "train.batch_size=8",
    "train.max_steps=14",
    "train.checkpoint_every=3",
    "mine.max_queries=120",
    "mine.num_dev_queries=8",
    "evaluate.max_queries=30",
    "evaluate.depth=10",
    "export.num_samples=8",
]
TIMEOUT = 280


def command(folder: Path) -> list[str]:
    overrides = [word for pair in SMALL for word in ("--set", pair)]
    return [
        sys.executable,
        "-c",
        "from ranker.cli import app; app()",
        "quickstart",
        "--output-dir",
        str(folder),
        *overrides,
    ]


def start(folder: Path, log: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "COLUMNS": "140"}
    with log.open("w") as stream:
        return subprocess.Popen(
            command(folder), stdout=stream, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
        )


def checkpoints(folder: Path) -> list[Path]:
    return list((folder / ".model.partial").rglob("checkpoint_*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_training_it_goes_on_and_leaves_figures_that_another_tool_reproduces(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    process = start(folder, tmp_path / "first.log")
    deadline = time.monotonic() + TIMEOUT
    while len(checkpoints(folder)) < 1 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert process.poll() is None, (tmp_path / "first.log").read_text()[-3000:]
    os.killpg(process.pid, signal.SIGKILL)  # the driver and, with it, everything of its own session
    process.wait()
    assert not (folder / "model").exists(), "a half-trained model must not look whole"
    assert (folder / "mine" / "manifest.json").is_file()

    process = start(folder, tmp_path / "second.log")
    assert process.wait(timeout=TIMEOUT) == 0, (tmp_path / "second.log").read_text()[-3000:]
    log = (tmp_path / "second.log").read_text()
    assert "already done" in log
    assert re.search(r"resuming after step ([3-9]|1[0-3]) of 14 steps", (folder / "model" / LOG).read_text())
    assert json.loads((folder / "model" / "manifest.json").read_text())["outcome"]["steps"] == 14

    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    qrels = list(ir_measures.read_trec_qrels(str(folder / "evaluation" / "qrels.trec")))
    names = {"ndcg@10": ir_measures.nDCG @ 10, "mrr@10": ir_measures.RR @ 10, "map": ir_measures.AP}
    for system, means in metrics["means"].items():
        run = list(ir_measures.read_trec_run(str(folder / "evaluation" / "runs" / f"{system}.trec")))
        independent = ir_measures.calc_aggregate(list(names.values()), qrels, run)
        for name, measure in names.items():
            assert means[name] == pytest.approx(independent[measure], abs=1e-9), (system, name)
    assert (folder / "onnx" / "model.onnx").is_file()
    assert (folder / "questions.md").read_text().count("## ") == 3

    process = start(folder, tmp_path / "third.log")
    assert process.wait(timeout=TIMEOUT) == 0
    assert "everything was already done" in (tmp_path / "third.log").read_text()


def test_the_experiment_ships() -> None:
    assert load_experiment(shipped("quickstart.yaml")).data.source == "pydocs"


def test_the_best_value_of_a_measure_is_bold_and_the_verdict_is_a_sentence() -> None:
    test = {
        "measure": "ndcg@10", "difference": 0.05, "low": 0.03, "high": 0.07, "p_value": 0.0001,
        "wins": 20, "losses": 5, "ties": 75,
    }  # fmt: skip
    metrics = {
        "means": {"retriever": {"ndcg@10": 0.6}, "reranked": {"ndcg@10": 0.65}},
        "significance": {"retriever": test},
    }
    table = metrics_table(metrics)
    assert list(table.columns[1].cells) == ["0.6000", "[bold]0.6500[/bold]"]
    assert verdict(metrics) == [
        "reranked against retriever: +0.0500 ndcg@10 (95% from +0.0300 to +0.0700), p = 0.0001, "
        "better on 20 queries, worse on 5, equal on 75"
    ]


def test_right_answers_are_marked() -> None:
    question = Question("which animal barks", frozenset({"d1"}), before=["d2", "d1"], after=["d1", "d2"], place=(2, 1))
    text = questions_markdown([question], {"d1": "A dog barks.", "d2": "A cat purrs."})
    assert "right answer: place 2 before, place 1 after" in text
    assert "Retriever alone:\n\n1. `d2` A cat purrs.\n2. ✓ `d1` A dog barks." in text
    assert "Reranked:\n\n1. ✓ `d1` A dog barks." in text
