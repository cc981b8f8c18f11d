import math

import pytest

from ranker.tuning.noise import compare_seeds
from ranker.tuning.repeats import Repeat, gains


def test_the_interval_is_welchs() -> None:
    found = compare_seeds([0.80, 0.82, 0.84], [0.90, 0.91, 0.92])
    assert found.gain == pytest.approx(0.09)
    assert found.noise == pytest.approx(math.sqrt((0.02**2 + 0.01**2) / 2))
    # By hand: standard error sqrt(4e-4 / 3 + 1e-4 / 3), degrees of freedom 2.94 and t = 3.22 of a table.
    error = math.sqrt((4e-4 + 1e-4) / 3)
    degrees = (5e-4 / 3) ** 2 / ((4e-4 / 3) ** 2 / 2 + (1e-4 / 3) ** 2 / 2)
    assert degrees == pytest.approx(2.94, abs=0.01)
    assert found.high - found.gain == pytest.approx(3.22 * error, rel=0.01)
    assert found.real and "more than seed noise" in found.verdict("ndcg@10", "test")


def test_a_gain_within_noise_is_said_to_be_so() -> None:
    found = compare_seeds([0.80, 0.84, 0.88], [0.82, 0.86, 0.90])
    assert found.gain == pytest.approx(0.02) and not found.real
    assert "within seed noise, so the sweep has not shown that its best is better" in found.verdict("ndcg@10", "test")


def test_one_seed_knows_no_chance() -> None:
    found = compare_seeds([0.8], [0.9])
    assert math.isnan(found.low) and not found.real
    assert "too few to know what is chance" in found.verdict("ndcg@10", "test")


def test_runs_that_never_differ() -> None:
    assert compare_seeds([0.5, 0.5], [0.6, 0.6]).real
    assert not compare_seeds([0.5, 0.5], [0.5, 0.5]).real


def test_a_repeat_that_failed_has_a_value_less() -> None:
    failed = Repeat("default", 2, error="TrainingError: rose")
    told = [Repeat("default", 1, 0.5, 0.4), failed, Repeat("best", 1, 0.7, 0.6)]
    found = gains(told)
    assert (found["dev"].default, found["dev"].best) == ((0.5,), (0.7,))
    assert found["test"].gain == pytest.approx(0.2)
    assert gains([Repeat("default", 1, 0.5)]) == {}
