"""The verbs `tune` and `retrain`, as far as they go without training."""

import pytest
from typer.testing import CliRunner

from ranker.cli import app


@pytest.fixture
def experiment(tmp_path):
    file = tmp_path / "toy.yaml"
    file.write_text(f"output_dir: {tmp_path}/run\ndata: {{source: nowhere}}\n")
    return file


def test_mistakes_of_a_space_are_told_before_any_stage_runs(experiment, tmp_path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "train.lora.rank: {sampler: choice, categories: [4]}\n"
        "train.learning_rate: {sampler: loguniform, lower: 1e-3, upper: 1e-5}\n"
    )
    result = CliRunner().invoke(app, ["tune", str(experiment), "--space", str(space)])
    assert result.exit_code == 1 and not (tmp_path / "run").exists()
    assert "2 mistakes" in result.output
    assert "train.lora.rank: unknown; did you mean 'train.lora.r'" in result.output
    assert "lower 0.001 must be below upper 1e-05" in result.output


def test_filters_of_mining_and_named_groups_exclude_each_other(experiment, tmp_path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("mine.num_negatives: {sampler: choice, categories: [1, 2]}")
    given = ["tune", str(experiment), "--space", str(space), "--set", "train.groups=g.parquet"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 1 and "mine.* varies, but train.groups 'g.parquet'" in result.output


def test_retrain_says_what_it_needs(experiment, tmp_path) -> None:
    result = CliRunner().invoke(app, ["retrain", str(experiment)])
    assert result.exit_code == 1 and "run `ranker tune` first" in result.output
    (tmp_path / "models").mkdir()
    result = CliRunner().invoke(app, ["retrain", str(experiment), "--source", str(tmp_path / "models")])
    assert result.exit_code == 1 and "no sweep and no trained model" in result.output
