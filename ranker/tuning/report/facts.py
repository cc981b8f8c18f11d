"""What a page on a sweep says: counts, settings, and what is chance. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranker.config import Experiment
from ranker.evaluation.significance import PairedTest, paired_test
from ranker.manifest import installed_packages
from ranker.tuning.noise import Gain
from ranker.tuning.repeats import BEST, DEFAULT, Repeat, gains
from ranker.tuning.samplers import every_value
from ranker.tuning.space import Space, looked_up
from ranker.tuning.trials import Trial


@dataclass(frozen=True)
class SweepReport:
    """All that the page shows.

    Args:
        config: the experiment as it stands. space: what varied. trials: in the order in which they began.
        repeats: the best and the default with several seeds.
    """

    config: Experiment
    space: Space
    trials: tuple[Trial, ...]
    best: Trial
    repeats: tuple[Repeat, ...]

    @classmethod
    def of(
        cls, config: Experiment, space: Space, trials: Sequence[Trial], best: Trial, repeats: Sequence[Repeat]
    ) -> "SweepReport":
        """The report of a sweep that is over."""
        return cls(config, space, tuple(trials), best, tuple(repeats))

    @property
    def metric(self) -> str:
        """The measure that decides."""
        return self.config.tune.metric

    @property
    def gains(self) -> dict[str, Gain]:
        """``dev`` and ``test``, where they were measured."""
        return gains(list(self.repeats))

    @property
    def varied(self) -> list[str]:
        """Paths that were sampled, or follow from what was, and took several values."""
        known = [path for entry in self.space.entries for path in entry.paths]
        return [path for path in dict.fromkeys(known) if len({repr(t.overrides.get(path)) for t in self.trials}) > 1]

    @property
    def endless(self) -> set[str]:
        """Paths whose sampler can give any number between two."""
        drawn = [
            entry for entry in self.space.sampled if entry.sampler is not None and every_value(entry.sampler) is None
        ]
        return {path for entry in drawn for path in entry.paths}

    def own(self, path: str) -> Any:
        """The experiment's own value."""
        return looked_up(path, {}, self.config)

    def with_status(self, status: str) -> list[Trial]:
        """The trials that ended so."""
        return [trial for trial in self.trials if trial.status == status]

    @property
    def packages(self) -> Mapping[str, str]:
        """Versions that decide a result."""
        return installed_packages()


def subtitle(report: SweepReport) -> str:
    """``24 trials, search optuna, scheduler asha: 15 finished, 8 stopped, 1 failed``."""
    settings = report.config.tune
    counts = {status: len(report.with_status(status)) for status in ("finished", "stopped", "failed")}
    said = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    how = f"search {settings.search}" + ("" if settings.scheduler == "none" else f", scheduler {settings.scheduler}")
    return f"{len(report.trials)} trials, {how}: {said}. Space: {settings.space}. Dev {report.metric} decides."


def picked(report: SweepReport) -> str | None:
    """How much of the best trial's own value was luck: what the same recipe reaches on dev with other seeds."""
    others = [told.dev for told in report.repeats if told.who == BEST and told.dev is not None]
    if not others or math.isnan(report.best.value):
        return None
    mean = float(np.mean(others))
    return (
        f"The best of {len(report.trials)} trials was chosen for its dev {report.metric} of {report.best.value:.4f}; "
        f"with {len(others)} other seed{'s' if len(others) > 1 else ''} the same settings reach {mean:.4f} "
        f"({mean - report.best.value:+.4f}): so much of the first figure is the luck of being picked."
    )


def query_test(report: SweepReport) -> PairedTest | None:
    """The best against the default on the test queries, each query's measure averaged over the seeds."""
    values = {who: _by_query([told for told in report.repeats if told.who == who]) for who in (DEFAULT, BEST)}
    shared = sorted(values[DEFAULT].keys() & values[BEST].keys())
    if not shared:
        return None
    before, after = (np.array([values[who][name] for name in shared]) for who in (DEFAULT, BEST))
    return paired_test(before, after, report.config.evaluate.significance_permutations, report.config.seed)


def _by_query(repeats: Sequence[Repeat]) -> dict[str, float]:
    known = [told.per_query for told in repeats if told.per_query]
    names = set.intersection(*(set(values) for values in known)) if known else set()
    return {name: float(np.mean([values[name] for values in known])) for name in names}


def overhead(report: SweepReport) -> str | None:
    """What Tune and Train cost around the training steps, as a sentence."""
    known = [(t.seconds, t.train_seconds) for t in report.trials if t.seconds and t.train_seconds is not None]
    if not known:
        return None
    around = [seconds - steps for seconds, steps in known]
    return (
        f"A trial took {np.median([seconds for seconds, _ in known]):.1f} s, of which "
        f"{np.median([steps for _, steps in known]):.1f} s were training steps (medians of {len(known)}); starting and "
        f"ending Ray Train, loading, measuring on dev and writing the model took the other {np.median(around):.1f} s."
    )
