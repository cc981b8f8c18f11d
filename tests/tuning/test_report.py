"""The page of a sweep: whole by itself, every number where it belongs."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from ranker.config import Experiment
from ranker.tuning.records import Point
from ranker.tuning.repeats import Repeat
from ranker.tuning.report import SweepReport, write_report
from ranker.tuning.report.importance import importances
from ranker.tuning.report.page import html_page
from ranker.tuning.report.svg import Scale, spread
from ranker.tuning.space_file import parse_space
from ranker.tuning.trials import Trial

SPACE = parse_space({
    "train.learning_rate": {"sampler": "loguniform", "lower": 1e-5, "upper": 1e-3},
    "train.loss": {"sampler": "choice", "categories": ["lce", "bce"]},
    "train.loss_options.pos_weight": {"sampler": "choice", "categories": [1, 7], "when": {"train.loss": "bce"}},
})  # fmt: skip


def some_trials(count: int = 12, latency: bool = True) -> list[Trial]:
    """The learning rate decides nearly everything; trial 3 failed, trial 4 was stopped."""
    rng, trials = np.random.default_rng(1), []
    for number in range(1, count + 1):
        overrides = SPACE.overrides(SPACE.draw(Experiment(), rng), Experiment())
        value = 0.8 + 0.05 * math.log10(overrides["train.learning_rate"] / 1e-5)
        points = tuple(Point(share, value - 0.1 * (1 - share)) for share in (0.25, 0.5, 1.0))
        told = {"number": number, "seconds": 20.0, "train_seconds": 12.0}
        told["latency_ms"] = 10.0 + number if latency else None
        if number == 3:
            trials.append(Trial("t3", overrides, status="failed", number=3, error="ValueError: <b>loss</b> is nan"))
        elif number == 4:
            trials.append(Trial("t4", overrides, points[0].value, "stopped", 4, points=points[:1]))
        else:
            trials.append(Trial(f"t{number}", overrides, value, points=points, **told))
    return trials


def report(trials: list[Trial], repeats: list[Repeat] = [], **changes: object) -> SweepReport:  # noqa: B006
    config = Experiment().with_overrides({"name": "pets & co", "evaluate.significance_permutations": 200, **changes})
    return SweepReport.of(config, SPACE, trials, max(trials, key=lambda trial: trial.score), repeats)


REPEATS = [
    Repeat(who, seed, base + 0.001 * seed, base + 0.002 * seed, {"q1": base, "q2": base + 0.01 * seed})
    for who, base in (("default", 0.8), ("best", 0.9)) for seed in (1, 2, 3)
]  # fmt: skip


def test_the_page_needs_nothing_else_and_says_all(tmp_path) -> None:
    write_report(tmp_path, report(some_trials(), REPEATS))
    page = (tmp_path / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?http|@import|url\(""", page)
    assert "pets &amp; co" in page and "<b>loss</b>" not in page, "what others wrote is text"
    for title in (
        "Is it better, or luck?", "The best settings", "Optimisation history", "While they trained",
        "Settings and what they gave", "What mattered", "Quality against speed", "Every trial", "Again",
    ):  # fmt: skip
        assert f"<h2>{title}</h2>" in page
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    assert "dev: ndcg@10 +0.1000" in page and "more than seed noise" in page and "p = " in page
    assert "so much of the first figure is the luck of being picked" in page
    assert "&lt;b&gt;loss&lt;/b&gt; is nan" in page
    assert "A trial took 20.0 s, of which 12.0 s were training steps" in page


def test_every_drawing_is_whole_and_every_trial_is_in_it() -> None:
    trials = some_trials()
    drawings = re.findall(r"<svg.*?</svg>", html_page(report(trials, REPEATS)), re.DOTALL)
    assert len(drawings) == 6
    for text in drawings:
        for element in ElementTree.fromstring(text).iter():
            for name in ("cx", "cy", "x", "y", "points", "d"):
                assert "nan" not in element.get(name, "") and "inf" not in element.get(name, "")
    history = next(text for text in drawings if "in order" in text)
    assert {int(number) for number in re.findall(r'data-trial="(\d+)"', history)} == set(range(1, 13))
    assert history.count('class="failed"') == 1 and history.count('class="stopped"') == 1


def test_what_was_not_done_is_not_shown_but_said() -> None:
    page = html_page(report(some_trials(latency=False)))
    assert "Quality against speed" not in page
    assert "how much of the gain is chance is not known" in page
    page = html_page(report(some_trials(), [Repeat("default", 1, 0.5), Repeat("best", 1, 0.6)]))
    assert "no test queries" in page and "too few to know what is chance" in page


def test_a_sweep_of_one_trial_has_a_page() -> None:
    page = html_page(report(some_trials(1)))
    assert "1 finished" in page and "What mattered" not in page


def test_importance_finds_what_matters() -> None:
    shares = importances(some_trials(40), ["train.learning_rate", "train.loss", "train.loss_options.pos_weight"], 13)
    assert next(iter(shares)) == "train.learning_rate" and shares["train.learning_rate"] > 0.7
    assert sum(shares.values()) == pytest.approx(1.0)
    assert importances(some_trials(3), ["train.learning_rate"], 13) == {}, "too few to know"


def test_scales() -> None:
    assert Scale(1, 100, 0, 200, log=True).at(10) == pytest.approx(100)
    assert Scale(0, 10, 100, 0).at(2.5) == 75
    assert Scale(1, 1, 0, 10).at(1) == 5
    assert all(0.48 <= tick <= 0.62 for tick in spread([0.5, 0.6], 0, 100).ticks())
