from pathlib import Path

import pytest
import yaml

from ranker.config import ConfigError, Experiment, known_paths, load_experiment, parse_overrides

JOBS = sorted((Path(__file__).parent.parent / "jobs").glob("*.yaml"))


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.name)
def test_every_shipped_experiment_loads(file: Path) -> None:
    assert load_experiment(file).name == file.stem


def test_three_mistakes_are_reported_at_once_with_paths_and_nearest_names(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("trian: {}\ntrain:\n  learning_rte: 1.0e-4\n  lora: {r: 0}\n")
    with pytest.raises(ConfigError) as caught:
        load_experiment(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: 3 mistakes")
    assert "trian: unknown; did you mean 'train'?" in message
    assert "train.learning_rte: unknown; did you mean 'learning_rate'" in message
    assert "train.lora.r: Input should be greater than or equal to 1, not 0" in message


def test_a_field_at_the_wrong_level_is_shown_its_place(tmp_path: Path) -> None:
    file = tmp_path / "flat.yaml"
    file.write_text("epochs: 3\n")
    with pytest.raises(ConfigError, match=r"epochs: unknown; did you mean 'train\.epochs'\?"):
        load_experiment(file)


def test_overrides_make_a_new_checked_object() -> None:
    base = Experiment()
    changed = base.with_overrides({"train.lora.r": 4, "mine.num_negatives": 3})
    assert (changed.train.lora.r, changed.mine.num_negatives) == (4, 3)
    assert base.train.lora.r == 8
    with pytest.raises(ConfigError) as caught:
        base.with_overrides({"train.lora.rank": 4, "train.epochs.x": 1, "train.precision": "fp8"})
    assert "3 mistakes" in str(caught.value)


def test_set_options_are_yaml() -> None:
    assert parse_overrides(["train.learning_rate=1e-5", "index.max_length=null", "mine.range_max=30"]) == {
        "train.learning_rate": "1e-5",  # YAML 1.1 wants 1.0e-5; the field's type makes a number of either
        "index.max_length": None,
        "mine.range_max": 30,
    }
    assert Experiment().with_overrides({"train.learning_rate": "1e-5"}).train.learning_rate == 1e-5
    with pytest.raises(ConfigError, match=r"--set 'train\.epochs': write it as name=value"):
        parse_overrides(["train.epochs"])


def test_rules_between_fields_name_both_values() -> None:
    with pytest.raises(ConfigError, match=r"train: batch_size 3 must be at least .* = 4\)"):
        Experiment().with_overrides({"train.batch_size": 3, "train.gradient_accumulation_steps": 2})
    with pytest.raises(ConfigError, match=r"num_workers \(4, 2\): write the fewest first"):
        Experiment().with_overrides({"train.num_workers": [4, 2]})
    with pytest.raises(ConfigError, match="patience and keep_best need evaluate_every"):
        Experiment().with_overrides({"train.patience": 2})
    with pytest.raises(ConfigError, match="patience and keep_best need evaluate_every"):
        Experiment().with_overrides({"train.keep_best": 2})
    with pytest.raises(ConfigError, match="mix takes 120% of a batch"):
        Experiment().with_overrides({"train.mix": [{"groups": "a", "share": 0.6}, {"groups": "b", "share": 0.6}]})
    with pytest.raises(ConfigError, match="mine: range_max 5 must be above range_min 10"):
        Experiment().with_overrides({"mine.range_min": 10, "mine.range_max": 5})


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        load_experiment(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(ConfigError, match=r"list\.yaml: must hold sections"):
        load_experiment(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("train: {epochs: [1\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml: not YAML"):
        load_experiment(tmp_path / "broken.yaml")


def test_yaml_round_trip() -> None:
    experiment = Experiment().with_overrides({"train.lora.target_modules": ["query", "value"], "seed": 3})
    assert Experiment.model_validate(yaml.safe_load(experiment.to_yaml())) == experiment


def test_identity_leaves_out_where_a_stage_runs() -> None:
    base = Experiment()
    elsewhere = base.with_overrides({"train.cpus_per_worker": 4, "train.output_dir": "x", "train.log_every": 1})
    assert elsewhere.train.identity() == base.train.identity()
    assert base.with_overrides({"train.lora.r": 4}).train.identity() != base.train.identity()


def test_folders_follow_the_experiment_or_the_section() -> None:
    experiment = Experiment().with_overrides({"output_dir": "/a", "index.output_dir": "/b/index"})
    assert experiment.folder("train") == Path("/a/model")
    assert experiment.folder("index") == Path("/b/index")


def test_every_field_says_what_it_is() -> None:
    lacking = []
    for path in known_paths():
        model: type = Experiment
        for name in path.split(".")[:-1]:
            model = model.model_fields[name].annotation
        if not model.model_fields[path.split(".")[-1]].description:
            lacking.append(path)
    assert lacking == []
