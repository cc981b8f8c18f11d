"""The main job at a size that fits a test: killed in the middle of training, started again, and once more when done."""

import json
import re
from pathlib import Path

import ir_measures
import pytest

from ranker.cli.quickstart import Question, metrics_table, questions_markdown, shipped, verdict
from ranker.config import load_experiment
from ranker.training.progress import LOG


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_training_it_goes_on_and_leaves_figures_that_another_tool_reproduces(interrupted_quickstart) -> None:
    story, folder = interrupted_quickstart, Path(interrupted_quickstart.config.output_dir)
    assert "model" not in story.left, "a half-trained model must not look whole"
    assert "mine" in story.whole

    assert "already done" in story.log
    assert story.log.count("starting a local Ray cluster") == 1, "training and evaluation share one"
    [reached] = re.findall(r"resuming after step (\d+) of 14 steps", (folder / "model" / LOG).read_text())
    assert story.recorded <= int(reached) < 14
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

    status, log = story.again()
    assert status == 0, log[-3000:]
    assert "everything was already done" in log


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
