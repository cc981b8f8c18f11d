import json
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ranker.cli import app
from ranker.cli.doctor import check, missing
from ranker.cli.models import trained_models
from ranker.manifest import run_stage, write_json

runner = CliRunner()
ROOT = Path(__file__).parent.parent.parent


def test_doctor_finds_this_installation_whole() -> None:
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "everything that is required is here" in result.output
    assert "instruction sets" in result.output


def test_doctor_names_what_is_missing_and_how_to_add_it() -> None:
    findings = check(["numpy>=1", "torch<=1.0", "no-such-package>=2,<3", 'chromadb-like>=1; extra == "chroma"'])
    lacking = missing(findings)
    assert [finding.name for finding in lacking] == ["torch", "no-such-package"]
    assert lacking[1].remedy == "pip install 'no-such-package<3,>=2'"
    assert [finding.extra for finding in findings] == [None, None, None, "chroma"]


def test_doctor_exits_with_1_when_something_required_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranker.cli.doctor.requires", lambda name: ["no-such-package>=2"])
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "pip install 'no-such-package>=2'" in result.output


def test_models_lists_finished_models_with_their_measures(tmp_path: Path) -> None:
    outcome = {"backbone": "some/bert", "pairs": 9, "dev": {"ndcg@10": 0.5}}
    model = run_stage("train", tmp_path / "a" / "model", {"loss": "lce"}, {}, lambda work: outcome)

    def evaluation(work: Path) -> dict[str, object]:
        write_json(work / "metrics.json", {"means": {"reranked": {"ndcg@10": 0.75}}})
        return {}

    run_stage("evaluate", tmp_path / "a" / "evaluation", {}, {"model": model.manifest.key}, evaluation)
    (tmp_path / ".b.partial").mkdir()
    write_json(tmp_path / ".b.partial" / "manifest.json", asdict(model.manifest))
    assert [path for path, _ in trained_models(tmp_path)] == [model.folder]
    result = runner.invoke(app, ["models", str(tmp_path)], env={"COLUMNS": "160"})
    assert " bert " in result.output
    assert "0.500" in result.output
    assert "0.750" in result.output
    assert runner.invoke(app, ["models", str(tmp_path / "nowhere")]).exit_code == 1


def test_config_prints_the_whole_experiment() -> None:
    result = runner.invoke(app, ["config", str(ROOT / "jobs" / "quickstart.yaml"), "--set", "train.lora.r=4"])
    assert result.exit_code == 0
    assert "    r: 4\n" in result.output


def test_evaluate_takes_a_run_and_judgements_without_any_model(tmp_path: Path) -> None:
    (tmp_path / "run.trec").write_text("q1 Q0 d1 1 2.0 bm25\nq1 Q0 d2 2 1.0 bm25\nq2 Q0 d3 1 1.0 bm25\n")
    (tmp_path / "qrels.trec").write_text("q1 0 d2 1\nq2 0 d3 1\n")
    arguments = ["evaluate", str(tmp_path / "run.trec"), str(tmp_path / "qrels.trec"), "--measure", "mrr@10"]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["means"] == {"mrr@10": 0.75}


def test_every_verb_says_what_it_does() -> None:
    for command in [*app.registered_commands]:
        assert (command.callback.__doc__ or "").strip(), command.name


def test_a_new_key_is_shown_once_and_its_line_holds_a_hash_and_limits() -> None:
    from ranker.serving.keys import load_keys

    result = runner.invoke(app, ["serve", "key", "--name", "team-a", "write=no"])
    assert result.exit_code == 0, result.output
    key, line = result.stderr.split()[-1], result.stdout.strip()
    found = load_keys(environment={"RANKER_API_KEYS": line}).find(f"Bearer {key}")
    assert found is not None and (found.name, found.limits.write) == ("team-a", False)
    assert key not in line
    wrong = runner.invoke(app, ["serve", "key", "requests=5"])
    assert wrong.exit_code == 1 and "requests_per_minute" in wrong.stderr and wrong.stdout == ""
