"""`ranker score` ranks the user's lists; `ranker engines` says what was measured."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ranker.cli import app
from ranker.config import ScoringConfig
from ranker.scoring import load_scorer

runner = CliRunner()
LISTS = [{"query": "cat", "documents": ["a dog", "a cat", "a parrot"]}, {"query": "dog", "documents": []}]


def test_lists_are_ranked_line_by_line(tiny_reranker: str, tmp_path: Path) -> None:
    (tmp_path / "lists.jsonl").write_text("\n".join(map(json.dumps, LISTS)))
    result = runner.invoke(
        app, ["score", tiny_reranker, str(tmp_path / "lists.jsonl"), "--raw", "--set", "precision=fp32"]
    )
    assert result.exit_code == 0, result.output
    cats, dogs = map(json.loads, result.stdout.splitlines())
    expected = load_scorer(tiny_reranker, ScoringConfig(precision="fp32"), "cpu").rank("cat", LISTS[0]["documents"])
    assert [found["index"] for found in cats["results"]] == [place for place, _ in expected]
    assert [found["score"] for found in cats["results"]] == pytest.approx([score for _, score in expected])
    assert dogs == {"query": "dog", "results": []}


def test_bad_lines_and_bad_fields_are_all_named(tiny_reranker: str, tmp_path: Path) -> None:
    file = tmp_path / "lists.jsonl"
    file.write_text('{"query": "cat"}\n{"query": "cat", "documents": [1]}\nno json\n')
    result = runner.invoke(app, ["score", tiny_reranker, str(file)])
    assert result.exit_code == 1
    for number in (1, 2, 3):
        assert f"lists.jsonl:{number}: " in result.output
    file.write_text(json.dumps(LISTS[0]))
    result = runner.invoke(app, ["score", tiny_reranker, str(file), "--set", "precison=fp32", "--set", "lanes=0"])
    assert result.exit_code == 1 and "precison" in result.output and "lanes" in result.output


def test_engines_writes_the_decision(tiny_reranker: str, tmp_path: Path) -> None:
    shutil.copytree(tiny_reranker, tmp_path / "model", ignore=shutil.ignore_patterns(".*"))
    result = runner.invoke(app, ["engines", str(tmp_path / "model"), "--set", "threads=2", "--set", "lanes=1"])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert "torch" in str(shown["chosen"])


@pytest.mark.slow
def test_engines_can_export_first_and_measures_what_it_wrote(tiny_reranker: str, tmp_path: Path) -> None:
    shutil.copytree(tiny_reranker, tmp_path / "model", ignore=shutil.ignore_patterns(".*"))
    result = runner.invoke(app, ["engines", str(tmp_path / "model"), "--export", "--set", "threads=1"])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    ways = {(trial["way"]["engine"], trial["way"]["precision"]) for trial in shown["trials"]}
    assert ways >= {("torch", "fp32"), ("onnx", "fp32")}
    assert (tmp_path / "model" / "onnx" / "model.onnx").is_file()
    int8 = shown["export"]["int8"]
    assert "refused" in int8 or int8["rank_correlation"] >= 0.99
    assert not list((tmp_path / "model").glob(".export-*"))
