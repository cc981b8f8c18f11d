from pathlib import Path

import pytest

from ranker.config import Experiment
from ranker.tuning import SpaceError, load_space
from ranker.tuning.space import SAMPLERS, parse_space

SHIPPED = sorted((Path(__file__).parents[2] / "tune_spaces").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_space_fits_the_default_experiment(path) -> None:
    space = load_space(path)
    space.check(Experiment())
    assert space.sampled


def test_three_spaces_ship() -> None:
    assert [path.stem for path in SHIPPED] == ["lora", "loss", "optimizer"]


def test_a_space_samples_fixes_and_ties(tmp_path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "train.learning_rate: {sampler: loguniform, lower: 1e-5, upper: 1e-3}\n"
        "train.lora.r: {sampler: choice, categories: [4, 8]}\n"
        "train.lora.alpha: {multiple_of: train.lora.r, factor: 2}\n"
        "train.lora.enabled: true\n"
    )
    space = load_space(file)
    assert all(1e-5 <= space.sampled["train.learning_rate"].sample() <= 1e-3 for _ in range(50))
    assert space.overrides({"train.lora.r": 4, "train.learning_rate": 1e-4}) == {
        "train.lora.enabled": True, "train.lora.r": 4, "train.learning_rate": 1e-4, "train.lora.alpha": 8,
    }  # fmt: skip
    changed = Experiment().with_overrides(space.overrides({"train.lora.r": 4})).train.lora
    assert (changed.enabled, changed.r, changed.alpha) == (True, 4, 8)


def test_all_mistakes_are_told_at_once_with_the_nearest_names() -> None:
    with pytest.raises(SpaceError) as error:
        parse_space({
            "train.learning_rat": {"sampler": "uniform", "lower": 0, "upper": 1},
            "train.lora.r": {"sampler": "choise", "categories": [1]},
            "train.weight_decay": {"sampler": "uniform", "lower": 1},
            "train.warmup_ratio": {"sampler": "uniform", "lower": 0.5, "upper": 0.1},
            "train.lora.alpha": {"multiple_of": "train.lora.rank"},
            "train.dropout": {"sampler": "choice", "categories": 3},
            "train.max_grad_norm": {"sampler": "uniform", "lower": "small", "upper": 1},
            "evaluate.depth": 30,
            "train.schedule": {"lower": 1},
        })  # fmt: skip
    text = str(error.value)
    assert text.startswith("space: 9 mistakes")
    for part in (
        "train.learning_rat: unknown; did you mean 'train.learning_rate'",
        "unknown sampler 'choise'; did you mean 'choice'?",
        "uniform lacks ['upper']; it takes lower, upper",
        "lower 0.5 must be below upper 0.1",
        "multiple_of 'train.lora.rank' is not a path of this file",
        "categories 3 must be a list",
        "lower 'small' must be a number",
        "evaluate.depth: only train.* may vary",
        "train.schedule: {'lower': 1} names neither a sampler nor multiple_of",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ({"train.epochs": 1.0}, "nothing is sampled"),
        ({"train.loss": {"sampler": "choice", "categories": ["lce"], "q": 2}}, r"does not take \['q'\]"),
        ({"train.learning_rate": {"sampler": "loguniform", "lower": 0, "upper": 1}}, "loguniform"),
        ({"train.lora.r": {"sampler": "choice", "categories": [4]}, "train.lora.alpha":
          {"multiple_of": "train.lora.r", "factor": "two"}}, "factor: NUMBER"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_is_refused(plain, says) -> None:
    with pytest.raises(SpaceError, match=says):
        parse_space(plain)


def test_a_configuration_that_cannot_be_is_found_before_a_trial_meets_it() -> None:
    space = parse_space({"train.batch_size": {"sampler": "choice", "categories": [1]}})
    with pytest.raises(SpaceError, match="batch_size 1 must be at least"):
        space.check(Experiment())


def test_files_that_are_no_space(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="tune_spaces/"):
        load_space(tmp_path / "none.yaml")
    for text in ("", "- a", "a: [", "3"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(SpaceError, match=r"bad\.yaml"):
            load_space(tmp_path / "bad.yaml")


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_rays(name) -> None:
    arguments = {
        "choice": {"categories": [1, 2]}, "randn": {}, "qrandn": {"mean": 0, "sd": 1, "q": 0.1},
    }.get(name, {"lower": 2, "upper": 64} | ({"q": 2} if name.startswith("q") else {}))  # fmt: skip
    space = parse_space({"train.batch_size": {"sampler": name, **arguments}})
    assert space.sampled["train.batch_size"].sample() is not None
