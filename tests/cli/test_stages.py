import json
import runpy
import sys
from pathlib import Path

import pytest

from ranker.cli import stages
from ranker.cli.stages import DOORS, PIPELINE, main, open_door, plan, run
from ranker.config import Experiment
from ranker.manifest import Done, run_stage
from ranker.pretrained import ModelNotFoundError

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("stage", DOORS)
def test_every_door_opens(stage: str) -> None:
    assert callable(open_door(stage))


def test_a_plan_holds_each_stage_once_in_order() -> None:
    assert plan("evaluate", Experiment()) == ["data", "index", "mine", "train", "evaluate"]
    assert plan("mine", Experiment()) == ["data", "index", "mine"]
    assert PIPELINE[-1] == "export"


def test_what_the_config_names_is_not_made_again(tmp_path: Path) -> None:
    given = Experiment().with_overrides({"train.groups": "my/groups.parquet"})
    assert plan("train", given) == ["train"]
    given = Experiment().with_overrides({"export.model": "my/model"})
    assert plan("export", given) == ["export"]
    elsewhere = Experiment().with_overrides({"index.output_dir": str(tmp_path / "index")})
    assert "index" in plan("mine", elsewhere)  # named, but nothing is there yet
    run_stage("index", tmp_path / "index", {}, {}, lambda work: {})
    assert plan("mine", elsewhere) == ["data", "mine"]


def test_a_job_prints_the_result_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def door(config: Experiment) -> Done:
        seen.append(config.train.epochs)
        return run_stage("train", tmp_path / "model", {}, {}, lambda work: {"pairs": 7})

    monkeypatch.setattr(stages, "open_door", lambda stage: door)
    file = tmp_path / "toy.yaml"
    file.write_text("train: {groups: g.parquet}\n")
    main("train", None, [str(file), "--set", "train.epochs=2"])
    printed = json.loads(capsys.readouterr().out)
    assert seen == [2]
    assert (printed["stage"], printed["skipped"], printed["pairs"]) == ("train", False, 7)
    assert run("train", Experiment().with_overrides({"train.groups": "g"})).skipped


def test_a_mistake_is_one_message_and_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "toy.yaml"
    file.write_text("trian: {}\n")
    with pytest.raises(SystemExit) as caught:
        main("train", None, [str(file)])
    assert caught.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "trian: unknown; did you mean 'train'?" in captured.err
    assert "Traceback" not in captured.err


def test_a_missing_model_is_found_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "open_door", lambda stage: pytest.fail(f"{stage} ran"))
    config = Experiment().with_overrides({"evaluate.model": str(tmp_path / "nowhere")})
    with pytest.raises(ModelNotFoundError, match="nowhere: no such model folder"):
        run("evaluate", config)


@pytest.mark.parametrize("stage", [*(s for s in DOORS if s != "data"), "pipeline"])
def test_every_stage_has_a_job_script(
    stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = ROOT / "jobs" / f"{stage}.py"
    source = script.read_text()
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(script), run_name="__main__")
    assert caught.value.code == 0
    assert f"python jobs/{stage}.py jobs/quickstart.yaml" in capsys.readouterr().out.replace("\n", " ")
    assert f'main("{stage}"' in source or (stage == "pipeline" and "main(None" in source)
    assert source.count("\n") <= 15
