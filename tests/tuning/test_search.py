"""The searches without a cluster: what they propose, and what they have learnt."""

import numpy as np
import pytest

from ranker.config import Experiment
from ranker.tuning.search import ConditionalOptuna, plan_search, population, random_samples
from ranker.tuning.space_file import parse_space
from ranker.tuning.trial import LATENCY, SAMPLE, VALUE

SPACE = parse_space({
    "train.learning_rate": {"sampler": "loguniform", "lower": 1e-5, "upper": 1e-2},
    "train.loss": {"sampler": "choice", "categories": ["lce", "bce"]},
    "train.loss_options.pos_weight": {"sampler": "choice", "categories": [1, 7], "when": {"train.loss": "bce"}},
    "train.batch_size": {"sampler": "qrandint", "lower": 8, "upper": 64, "q": 8},
    "train.group_size": {"sampler": "choice", "categories": [4, 8]},
    "constraints": ["train.batch_size * train.group_size <= 256"],
})  # fmt: skip
CONFIG = Experiment().with_overrides({"tune.num_trials": 24})


def play(search: ConditionalOptuna, trials: range, result=lambda sample: sample["train.learning_rate"]) -> list[dict]:
    """Trials one after the other, each told its result."""
    samples = []
    for number in trials:
        samples.append(search.suggest(f"t{number}")[SAMPLE])
        found = result(samples[-1])
        search.on_trial_complete(f"t{number}", None if found is None else {VALUE: found})
    return samples


def test_tpe_keeps_conditions_and_constraints_and_finds_the_better_half() -> None:
    samples = play(ConditionalOptuna(SPACE, CONFIG), range(24))
    for sample in samples:
        assert ("train.loss_options.pos_weight" in sample) is (sample["train.loss"] == "bce")
        assert sample["train.batch_size"] * sample["train.group_size"] <= 256
        assert sample["train.batch_size"] % 8 == 0
    assert samples[0]["train.learning_rate"] == 5e-5, "the first trial is the experiment's own recipe"
    early, late = (np.mean([np.log10(s["train.learning_rate"]) for s in part]) for part in (samples[1:7], samples[-6:]))
    assert late > early + 0.3, "where more is better, it goes there"


def test_tpe_avoids_where_trials_fail() -> None:
    samples = play(ConditionalOptuna(SPACE, CONFIG), range(24), lambda s: 0.5 if s["train.loss"] == "lce" else None)
    assert sum(sample["train.loss"] == "lce" for sample in samples[-10:]) >= 6


def test_a_restored_search_goes_on_as_if_nothing_had_been(tmp_path) -> None:
    one, other = ConditionalOptuna(SPACE, CONFIG), ConditionalOptuna(SPACE, CONFIG)
    play(one, range(8))
    one.save(str(tmp_path / "search.pkl"))
    expected = play(one, range(8, 12))
    other.restore(str(tmp_path / "search.pkl"))
    assert play(other, range(8, 12)) == expected


def test_several_objectives() -> None:
    search = ConditionalOptuna(SPACE, CONFIG.with_overrides({"tune.latency": True}))
    for number in range(6):
        search.suggest(f"t{number}")
        search.on_trial_complete(f"t{number}", {VALUE: 0.5, LATENCY: 3.0} if number % 2 else {VALUE: 0.4})
    states = [trial.state.name for trial in search._ot_study.trials if trial.state.name != "FAIL"]
    assert states == ["COMPLETE"] * 3, "a trial without a time has no place on the front"


@pytest.mark.parametrize("search", ["random", "pbt"])
def test_random_samples_are_seeded(search) -> None:
    config = CONFIG.with_overrides({"tune.search": search})
    one, other = (plan_search(SPACE, config, 2).param_space[SAMPLE]["grid_search"] for _ in range(2))
    assert one == other and len(one) == 24
    whole = {entry.name for entry in SPACE.sampled}
    assert all(set(sample) == whole for sample in one) is (search == "pbt")


def test_a_population_stays_within_bounds_and_constraints() -> None:
    rng = np.random.default_rng(0)
    scheduler = population(SPACE, CONFIG, rng)
    sample = {**random_samples(SPACE, CONFIG, rng)[0], "train.loss_options.pos_weight": 1}
    for factor in (0.01, 100.0):
        changed = {**sample, "train.learning_rate": sample["train.learning_rate"] * factor, "train.batch_size": 77}
        mended = scheduler._custom_explore_fn({SAMPLE: changed})[SAMPLE]
        assert 1e-5 <= mended["train.learning_rate"] <= 1e-2
        assert mended["train.batch_size"] in range(8, 72, 8)
        assert SPACE.allows(SPACE.overrides(mended, CONFIG), CONFIG)


def test_a_grid_has_its_own_number_of_trials() -> None:
    space = parse_space({"train.schedule": {"sampler": "choice", "categories": ["linear", "cosine", "constant"]}})
    assert plan_search(space, CONFIG.with_overrides({"tune.search": "grid"}), 2).num_trials == 3
