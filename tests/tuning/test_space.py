from pathlib import Path

import numpy as np
import pytest
import yaml

from ranker.config import Experiment
from ranker.training.losses import loss_options
from ranker.tuning import SpaceError, load_space
from ranker.tuning.samplers import SAMPLERS, could_give, draw, every_value, make_sampler
from ranker.tuning.space_check import check_space, checked_space
from ranker.tuning.space_file import parse_space

SHIPPED = sorted((Path(__file__).parents[2] / "tune_spaces").glob("*.yaml"))
LOSSES = {
    "train.loss": {"sampler": "choice", "categories": ["lce", "bce", "margin"]},
    "train.loss_options.pos_weight": {"sampler": "choice", "categories": [1, 7], "when": {"train.loss": "bce"}},
    "train.loss_options.margin": {
        "sampler": "uniform", "lower": 0.5, "upper": 2, "when": {"train.loss": ["margin", "triplet"]},
    },
}  # fmt: skip


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_space_fits_the_default_experiment(path) -> None:
    space, config = load_space(path), Experiment()
    check_space(space, config)
    assert space.sampled
    for number in range(50):
        sample = space.draw(config, np.random.default_rng(number)) if number else space.first_sample(config, rng())
        train = config.with_overrides(space.overrides(sample, config)).train
        assert set(train.loss_options) <= set(loss_options(train.loss)), "a loss has its own parameters and no others"


def test_the_space_that_the_manual_shows_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text()
    shown = yaml.safe_load(page.split("```yaml")[1].split("```")[0])
    space = parse_space(shown)
    check_space(space, Experiment())
    assert len(space.entries) == 9 and len(space.constraints) == 1


def test_the_spaces_that_ship() -> None:
    assert [path.stem for path in SHIPPED] == ["lora", "loss", "mining", "optimizer"]


def test_a_space_samples_fixes_and_ties(tmp_path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "train.learning_rate: {sampler: loguniform, lower: 1e-5, upper: 1e-3}\n"
        "train.lora.alpha: {multiple_of: train.lora.r, factor: 2}\n"  # before what it is tied to
        "train.lora.r: {sampler: choice, categories: [4, 8]}\n"
        "train.lora.enabled: true\n"
    )
    space, config = load_space(file), Experiment()
    overrides = space.overrides({"train.lora.r": 4, "train.learning_rate": 1e-4}, config)
    assert overrides == {
        "train.lora.enabled": True, "train.lora.r": 4, "train.learning_rate": 1e-4, "train.lora.alpha": 8,
    }  # fmt: skip
    changed = config.with_overrides(overrides).train.lora
    assert (changed.enabled, changed.r, changed.alpha) == (True, 4, 8)


def test_parameters_of_a_loss_count_only_for_that_loss() -> None:
    space, config = parse_space(LOSSES), Experiment()
    seen = [space.overrides(space.draw(config, np.random.default_rng(n)), config) for n in range(40)]
    for overrides in seen:
        options = {path.rpartition(".")[2] for path in overrides if path.startswith("train.loss_options.")}
        assert options == {"lce": set(), "bce": {"pos_weight"}, "margin": {"margin"}}[overrides["train.loss"]]
    assert {overrides["train.loss"] for overrides in seen} == {"lce", "bce", "margin"}


def test_the_experiments_own_options_go_where_another_loss_comes() -> None:
    space = parse_space({"train.loss": {"sampler": "choice", "categories": ["lce", "bce"]}})
    config = Experiment().with_overrides({"train.loss": "bce", "train.loss_options": {"pos_weight": 5}})
    assert space.overrides({"train.loss": "lce"}, config) == {"train.loss_options": {}, "train.loss": "lce"}
    assert space.overrides({"train.loss": "bce"}, config) == {"train.loss": "bce"}, "and stay where it is the same"


def test_a_condition_may_read_the_experiment() -> None:
    space = parse_space({
        "train.lora.r": {"sampler": "choice", "categories": [4, 8], "when": {"train.lora.enabled": True}},
        "train.batch_size": {"sampler": "choice", "categories": [8]},
    })  # fmt: skip
    assert "train.lora.r" not in space.draw(Experiment(), rng())
    assert "train.lora.r" in space.draw(Experiment().with_overrides({"train.lora.enabled": True}), rng())


def test_alternatives_of_one_path() -> None:
    space = parse_space({
        "train.lora.enabled": {"sampler": "choice", "categories": [True, False]},
        "train.learning_rate": [
            {"sampler": "loguniform", "lower": 1e-3, "upper": 1e-2, "when": {"train.lora.enabled": True}},
            {"sampler": "loguniform", "lower": 1e-6, "upper": 1e-5},
        ],
    })  # fmt: skip
    for number in range(20):
        found = space.overrides(space.draw(Experiment(), np.random.default_rng(number)), Experiment())
        assert (found["train.learning_rate"] >= 1e-3) is found["train.lora.enabled"]


def test_alternatives_keep_their_order_where_a_condition_reads_a_later_line() -> None:
    space = parse_space({
        "train.group_size": [{"value": 8, "when": {"train.loss": "bce"}}, {"value": 4}],
        "train.loss": {"sampler": "choice", "categories": ["lce", "bce"]},
    })  # fmt: skip
    sizes = {loss: space.overrides({"train.loss": loss}, Experiment())["train.group_size"] for loss in ("lce", "bce")}
    assert sizes == {"lce": 4, "bce": 8}


def test_joint_entries_take_their_values_together() -> None:
    space = parse_space({
        "train.schedule, train.warmup_ratio": {"sampler": "choice", "categories": [["linear", 0.1], ["constant", 0.0]]}
    })  # fmt: skip
    grid = [space.overrides(sample, Experiment()) for sample in space.grid(Experiment())]
    assert grid == [
        {"train.schedule": "linear", "train.warmup_ratio": 0.1},
        {"train.schedule": "constant", "train.warmup_ratio": 0.0},
    ]


def test_constraints_hold_in_every_draw_and_in_the_grid() -> None:
    plain = {
        "train.batch_size": {"sampler": "choice", "categories": [8, 16, 32]},
        "train.group_size": {"sampler": "choice", "categories": [4, 8]},
        "constraints": ["train.batch_size * train.group_size <= 128"],
    }
    space, config = parse_space(plain), Experiment()
    pairs = {(s["train.batch_size"], s["train.group_size"]) for s in space.grid(config)}
    assert pairs == {(8, 4), (8, 8), (16, 4), (16, 8), (32, 4)}
    drawn = [space.draw(config, np.random.default_rng(n)) for n in range(60)]
    assert {(s["train.batch_size"], s["train.group_size"]) for s in drawn} == pairs
    nothing = parse_space(plain | {"constraints": ["train.batch_size > 1000"]})
    with pytest.raises(SpaceError, match="satisfies the constraints"):
        nothing.draw(config, rng())
    with pytest.raises(SpaceError, match="leave nothing of the grid"):
        nothing.grid(config)


def test_the_grid_goes_through_conditions() -> None:
    plain = LOSSES | {"train.loss_options.margin": {"value": 1.5, "when": {"train.loss": "margin"}}}
    grid = [parse_space(plain).overrides(s, Experiment()) for s in parse_space(plain).grid(Experiment())]
    assert [tuple(overrides.values()) for overrides in grid] == [("lce",), ("bce", 1), ("bce", 7), ("margin", 1.5)]
    with pytest.raises(SpaceError, match=r"few values.*train\.loss_options\.margin"):
        parse_space(LOSSES).grid(Experiment())


def test_the_first_trial_is_the_experiment_itself_where_it_can_be() -> None:
    space = parse_space({
        "train.learning_rate": {"sampler": "loguniform", "lower": 1e-5, "upper": 1e-3},
        "train.batch_size": {"sampler": "choice", "categories": [8, 16]},
        "train.lora.r": {"sampler": "choice", "categories": [4, 32]},
        "first": {"train.lora.r": 32},
    })  # fmt: skip
    assert space.first_sample(Experiment(), rng()) == {
        "train.learning_rate": 5e-5, "train.batch_size": 16, "train.lora.r": 32,
    }  # fmt: skip


def test_the_largest_that_a_trial_may_ask_for() -> None:
    space = parse_space({"train.num_workers": {"sampler": "choice", "categories": [1, 4]}})
    assert space.largest("train.num_workers", 2) == 4
    assert space.largest("train.cpus_per_worker", 1.0) == 1.0


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
            "train.groups": "other.parquet",
            "train.schedule": {"lower": 1},
            "train.loss, train.epochs": {"sampler": "choice", "categories": [["lce"]]},
            "train.batch_size": {"sampler": "choice", "categories": [8], "when": {"train.lose": "bce"}},
            "constraints": ["train.batch_siz > 3", "__import__('os')", "train.loss in [lce]"],
            "train.lora.enabled, train.lora.dropout": {"sampler": "choice", "categories": [[True, 0.1], [False, 0.0]]},
            "first": {"train.batch_size": 9, "train.seed": 1, "train.lora.enabled": True, "train.lora.dropout": 0.5},
        })  # fmt: skip
    text = str(error.value)
    for part in (
        "train.learning_rat: unknown; did you mean 'train.learning_rate'",
        "unknown sampler 'choise'; did you mean 'choice'?",
        "uniform lacks ['upper']; it takes lower, upper",
        "lower 0.5 must be below upper 0.1",
        "multiple_of 'train.lora.rank' is unknown",
        "categories 3 must be a list",
        "lower 'small' must be a number",
        "evaluate.depth: only train.*, mine.* and seed may vary",
        "train.groups: may not vary: trials learn from the same groups",
        "train.schedule: {'lower': 1} names neither a sampler nor multiple_of nor value",
        "2 paths need {sampler: choice, categories: [[VALUE, VALUE], ...]}",
        "train.batch_size: when 'train.lose' is unknown",
        "'train.batch_siz' is unknown",
        "is not allowed; a constraint holds paths",
        "'lce' is unknown (texts stand in quotes)",
        "first: train.batch_size: the sampler never gives 9",
        "first: 'train.seed' is not sampled in this file",
        "first: train.lora.enabled, train.lora.dropout: the sampler never gives train.lora.enabled True, ",
    ):
        assert part in text, part
    assert text.startswith(f"space: {text.count(chr(10))} mistakes")


@pytest.mark.parametrize(
    ("plain", "says"),
    [
        ({"train.epochs": 1.0}, "nothing is sampled"),
        ({"train.loss": {"sampler": "choice", "categories": ["lce"], "q": 2}}, r"does not take \['q'\]"),
        ({"train.learning_rate": {"sampler": "loguniform", "lower": 0, "upper": 1}}, "loguniform"),
        ({"train.learning_rate": {"sampler": "uniform", "lower": 0, "upper": float("inf")}}, "must be a number"),
        ({"train.lora.r": {"sampler": "choice", "categories": [4]}, "train.lora.alpha":
          {"multiple_of": "train.lora.r", "factor": "two"}}, "factor: NUMBER"),
        ({"train.lora.r": {"multiple_of": "train.lora.alpha"}, "train.lora.alpha": {"multiple_of": "train.lora.r"}},
         "needs it in turn"),
        ({"train.loss": {"sampler": "choice", "categories": ["lce"]}, "constraints": "x < 1"}, "must be a list"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_is_refused(plain, says) -> None:
    with pytest.raises(SpaceError, match=says):
        parse_space(plain)


def test_every_sampler_that_does_not_fit_its_field_is_told_before_anything_starts() -> None:
    space = parse_space({
        "train.lora.r": {"sampler": "uniform", "lower": 4, "upper": 16},
        "train.schedule": {"sampler": "choice", "categories": ["linear", "steps"]},
        "train.dropout": {"sampler": "uniform", "lower": 0, "upper": 2},
        "mine.num_negatives": 0,
    })  # fmt: skip
    with pytest.raises(SpaceError) as error:
        check_space(space, Experiment())
    text = str(error.value)
    for part in ("4 mistakes", "train.lora.r: train.lora.r:", "'steps'", "train.dropout", "mine.num_negatives"):
        assert part in text


@pytest.mark.parametrize(
    ("plain", "changes", "says"),
    [
        ({"train.batch_size": {"sampler": "choice", "categories": [1, 16]}}, {}, "batch_size 1 must be at least"),
        ({"train.loss": {"sampler": "choice", "categories": ["lce", "bcee"]}}, {}, "did you mean 'bce'"),
        ({"train.loss": {"sampler": "choice", "categories": ["lce", "bce"]}, "train.loss_options.pos_weight": 3}, {},
         "'lce' has no option 'pos_weight'.*when"),
        ({"train.dropout": {"sampler": "choice", "categories": [None]}, "constraints": ["train.dropout < 0.5"]}, {},
         "cannot be computed with train.dropout = None"),
        ({"train.learning_rate": {"sampler": "randn"}}, {}, "needs bounds"),
        ({"train.dropout": {"sampler": "uniform", "lower": 0, "upper": 0.1}}, {"tune.search": "grid"}, "few values"),
        ({"train.batch_size": {"sampler": "choice", "categories": [8, 16]}}, {"tune.scheduler": "asha"},
         "train.evaluate_every is"),
    ],
)  # fmt: skip
def test_trials_that_cannot_be_are_found_before_one_starts(plain, changes, says) -> None:
    with pytest.raises(SpaceError, match=says):
        check_space(parse_space(plain), Experiment().with_overrides(changes))


def test_mistakes_of_lines_of_fields_and_of_whole_trials_come_in_one_message(tmp_path) -> None:
    (tmp_path / "space.yaml").write_text(
        "train.lora.rank: {sampler: choice, categories: [4]}\n"  # no such path
        "train.dropout: {sampler: uniform, lower: 0, upper: 2}\n"  # a value that the field does not take
        "train.batch_size: {sampler: choice, categories: [1, 16]}\n"  # a trial that cannot be, with two workers
        "train.weight_decay: {sampler: randn}\n"  # no bounds, which TPE needs
        "train.head_learning_rate: {sampler: loguniform, lower: 1e-4, upper: 1e-3, when: {train.loss: BCE}}\n"
    )
    with pytest.raises(SpaceError) as error:
        checked_space(Experiment().with_overrides({"tune.space": str(tmp_path / "space.yaml")}))
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'space.yaml'}: 5 mistakes"), text
    for part in ("train.lora.rank: unknown", "train.dropout: train.dropout", "batch_size 1 must be at least",
                 "train.weight_decay: search 'optuna' needs bounds", "train.loss is never 'BCE'"):  # fmt: skip
        assert part in text, part


def test_what_only_follows_from_another_mistake_is_not_told(tmp_path) -> None:
    (tmp_path / "space.yaml").write_text(
        "train.loss: {sampler: choise, categories: [margin]}\n"  # so that nothing says which loss it is
        "train.loss_options.margin: {sampler: uniform, lower: 0.5, upper: 2}\n"
        "constraints: [train.loss == 'margin']\n"
    )
    with pytest.raises(SpaceError, match="1 mistake\n"):
        checked_space(Experiment().with_overrides({"tune.space": str(tmp_path / "space.yaml")}))


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ({"train.loss": "BCE"}, "train.dropout: never counts, since train.loss is never 'BCE'; it takes 'lce', 'bce'"),
        ({"train.loss": "margin"}, "train.loss is never 'margin'"),
        ({"train.loss": ["bce", "BCE"]}, "when train.loss is 'BCE': no trial has that"),
        ({"train.loss": ["bce", "margin"]}, None),  # another file may give it
        ({"train.lora.enabled": True}, "the experiment has False and nothing here varies it"),
        ({"train.lora.enabled": False}, None),
        ({"train.learning_rate": "1e-3"}, None),  # as YAML reads 1e-3
        ({"train.learning_rate": 0.5}, "its values come from train.learning_rate"),
        ({"train.schedule": "constant", "train.warmup_ratio": 0.1}, None),
        ({"train.schedule": "cosine"}, "train.schedule is never 'cosine'"),
        ({"train.lora.alpha": 16}, None),  # tied, so that nobody knows
    ],
)
def test_a_condition_that_no_trial_meets_is_told(when, says) -> None:
    space = parse_space({
        "train.loss": {"sampler": "choice", "categories": ["lce", "bce"]},
        "train.learning_rate": {"sampler": "loguniform", "lower": 1e-5, "upper": 1e-3},
        "train.schedule, train.warmup_ratio": {"sampler": "choice", "categories": [["linear", 0], ["constant", 0.1]]},
        "train.lora.alpha": {"multiple_of": "train.lora.r"},
        "train.dropout": {"value": 0.1, "when": when},
    })  # fmt: skip
    if says is None:
        check_space(space, Experiment())
        return
    with pytest.raises(SpaceError) as error:
        check_space(space, Experiment())
    assert says in str(error.value) and "1 mistake\n" in str(error.value)


def test_numbers_that_yaml_takes_for_text_are_numbers() -> None:
    plain = yaml.safe_load(
        "train.learning_rate: {sampler: choice, categories: [1e-3, 1e-4]}\n"
        "train.dropout: {value: 2e-1, when: {train.learning_rate: 1e-3}}\n"
        "train.weight_decay: 1e-2\n"
        "constraints: [train.weight_decay < 1]\n"
    )
    space = parse_space(plain)
    check_space(space, Experiment())
    assert [space.overrides(sample, Experiment()) for sample in space.grid(Experiment())] == [
        {"train.learning_rate": 1e-3, "train.dropout": 0.2, "train.weight_decay": 0.01},
        {"train.learning_rate": 1e-4, "train.weight_decay": 0.01},
    ]


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ({"train.batch_size": 32, "train.group_size": 8}, "forbid {'train.batch_size': 32, 'train.group_size': 8}"),
        ({"train.schedule": "linear", "train.group_size": 4}, "group_size: would not be 4 in the first trial, but 8"),
        ({"train.loss_options.pos_weight": 7}, None),  # for an experiment whose loss is bce
        ({"train.batch_size": 32}, None),  # what is not said is drawn until it fits
        ({"train.loss": "bce", "train.loss_options.pos_weight": 7, "train.schedule": "linear"}, None),
    ],
)
def test_a_first_trial_that_cannot_be_is_told(first, says) -> None:
    space = parse_space({
        "train.batch_size": {"sampler": "choice", "categories": [8, 16, 32]},
        "train.group_size": [
            {"value": 8, "when": {"train.schedule": "linear"}}, {"sampler": "choice", "categories": [4, 8]},
        ],
        "train.loss": {"sampler": "choice", "categories": ["lce", "bce"]},
        "train.loss_options.pos_weight": {"sampler": "choice", "categories": [1, 7], "when": {"train.loss": "bce"}},
        "train.schedule, train.warmup_ratio": {"sampler": "choice", "categories": [["linear", 0.1], ["constant", 0]]},
        "constraints": ["train.batch_size * train.group_size <= 128"],
        "first": first,
    })  # fmt: skip
    changes = {"train.group_size": 5, "train.schedule": "constant", "train.warmup_ratio": 0.0}
    config = Experiment().with_overrides(changes)
    if says is None:
        check_space(space, config)
        began = space.overrides(space.first_sample(config, rng()), config)
        assert all(began[path] == value for path, value in first.items() if path in began)
        return
    with pytest.raises(SpaceError) as error:
        check_space(space, config)
    assert says in str(error.value) and "1 mistake\n" in str(error.value)


def test_files_that_are_no_space(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="tune_spaces/"):
        load_space(tmp_path / "none.yaml")
    for text in ("", "- a", "a: [", "3"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(SpaceError, match=r"bad\.yaml"):
            load_space(tmp_path / "bad.yaml")


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_rays_and_seeded(name) -> None:
    arguments = {
        "choice": {"categories": [1, [2]]}, "randn": {}, "qrandn": {"mean": 0, "sd": 1, "q": 0.1},
    }.get(name, {"lower": 2, "upper": 64} | ({"q": 2} if name.startswith("q") else {}))  # fmt: skip
    sampler = make_sampler({"sampler": name, **arguments})
    values = [draw(sampler, np.random.default_rng(number)) for number in range(30)]
    assert values == [draw(sampler, np.random.default_rng(number)) for number in range(30)]
    assert all(could_give(sampler, value) for value in values)
    known = every_value(sampler)
    if "int" in name or name in ("choice", "quniform", "qloguniform"):
        assert all(value in known for value in values)
    else:
        assert known is None
    if name == "randint":
        assert (known[0], known[-1]) == (2, 63)  # as Ray says, the upper end is left out
