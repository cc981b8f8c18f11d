"""How the next trial is chosen and which are stopped: Ray Tune's searchers and schedulers, fed from a space."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.trial import Trial as OptunaTrial
from optuna.trial import TrialState
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, HyperBandScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.sample import Categorical

from ranker.config import Experiment
from ranker.tuning.population import GENERATION
from ranker.tuning.samplers import draw, plain, point, suggest
from ranker.tuning.space import Entry, Sample, Space, SpaceError
from ranker.tuning.trial import LATENCY, SAMPLE, TIME, VALUE

# TPE asks so often for a sample that the constraints allow.
MOST_ASKED = 200
# TPE begins to learn after a quarter of the trials, but not before a handful and not later than Optuna itself.
FEWEST_RANDOM, MOST_RANDOM = 4, 10


@dataclass(frozen=True)
class Search:
    """What Tune is told.

    Args:
        param_space: a trial's config, with what Tune itself resolves. num_samples: trials that it asks for.
        num_trials: trials that come of it. algorithm, scheduler: None for Tune's own.
        stop: metric -> value at which a trial is over. capped: whether Tune itself shall hold trials back.
    """

    param_space: dict[str, Any]
    num_samples: int
    num_trials: int
    algorithm: Searcher | SearchAlgorithm | None
    scheduler: TrialScheduler | None
    stop: dict[str, Any] = field(default_factory=dict)
    capped: bool = False

    @property
    def reuses(self) -> bool:
        """Whether trials take turns in the same processes: not where some are stopped in the middle of their work."""
        return self.scheduler is None


def plan_search(space: Space, config: Experiment, concurrent: int) -> Search:
    """The search that `tune` names, seeded.

    Args:
        concurrent: trials that the resources hold at once.
    """
    settings, rng = config.tune, np.random.default_rng(config.seed)
    if settings.search == "optuna":
        searcher = ConditionalOptuna(space, config)
        told = settings.num_trials
        return Search({}, told, told, searcher, scheduler_of(config), capped=settings.scheduler != "hyperband")
    if settings.search == "pbt":
        members = [_whole(space, sample, rng) for sample in random_samples(space, config, rng)]
        # All members must be there at once; trials take turns by their slots instead.
        algorithm = BasicVariantGenerator(random_state=config.seed)
        stop = {GENERATION: settings.generations}
        return Search(listed(members), 1, len(members), algorithm, population(space, config, rng), stop)
    samples = space.grid(config) if settings.search == "grid" else random_samples(space, config, rng)
    # A band of HyperBand waits for all of its trials, so that none of them may be held back.
    cap = 0 if settings.scheduler == "hyperband" else concurrent
    algorithm = BasicVariantGenerator(max_concurrent=cap, random_state=config.seed)
    return Search(listed(samples), 1, len(samples), algorithm, scheduler_of(config))


def listed(samples: list[Sample]) -> dict[str, Any]:
    """A param space of exactly these samples."""
    return {SAMPLE: tune.grid_search(samples)}


def random_samples(space: Space, config: Experiment, rng: np.random.Generator) -> list[Sample]:
    """The first trial and as many random ones as are missing."""
    first = space.first_sample(config, rng)
    samples = [first] if first is not None else []
    return samples + [space.draw(config, rng) for _ in range(config.tune.num_trials - len(samples))]


def scheduler_of(config: Experiment) -> TrialScheduler | None:
    """The scheduler that stops trials; None where all run to their end."""
    settings = config.tune
    told: dict[str, Any] = {"time_attr": TIME, "metric": VALUE, "mode": "max", "max_t": 1.0 / settings.grace}
    if settings.scheduler == "asha":
        return AsyncHyperBandScheduler(**told, grace_period=1, reduction_factor=settings.reduction_factor)
    if settings.scheduler == "hyperband":
        return HyperBandScheduler(**told, reduction_factor=settings.reduction_factor)
    return None


def population(space: Space, config: Experiment, rng: np.random.Generator) -> PopulationBasedTraining:
    """The scheduler that lets the worst quarter go on from the best, with settings a little changed."""

    def mended(trial: dict[str, Any]) -> dict[str, Any]:
        """Changed settings within bounds and constraints."""
        sample = _rounded(space, trial[SAMPLE])
        if not space.allows(space.overrides(sample, config), config):
            sample = _whole(space, space.draw(config, rng), rng)
        return {**trial, SAMPLE: sample}

    mutations = {entry.name: _mutation(entry) for entry in space.sampled}
    return PopulationBasedTraining(
        time_attr=GENERATION, metric=VALUE, mode="max", perturbation_interval=1,
        hyperparam_mutations={SAMPLE: mutations}, custom_explore_fn=mended, synch=True, log_config=False,
    )  # fmt: skip


def _mutation(entry: Entry) -> Any:
    # In a list Tune goes to a neighbour; what `choice` gives it would multiply.
    return list(entry.sampler.categories) if isinstance(entry.sampler, Categorical) else entry.sampler


def _rounded(space: Space, sample: Mapping[str, Any]) -> Sample:
    return {
        entry.name: plain(entry.sampler, sample[entry.name]) for entry in space.sampled if entry.sampler is not None
    }


def _whole(space: Space, sample: Sample, rng: np.random.Generator) -> Sample:
    """A sample with values also for what its conditions leave out: a member of a population may come to need them."""
    rest = {entry.name: draw(entry.sampler, rng) for entry in space.sampled if entry.sampler is not None}
    return {**rest, **sample}


class ConditionalOptuna(OptunaSearch):
    """Optuna's TPE over a space with conditions and constraints; a trial without a value counts as a bad one.

    Args:
        space: of what is sampled. config: the experiment; ``tune`` says how many trials and which objectives.
    """

    _ot_study: Any

    def __init__(self, space: Space, config: Experiment) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.config, self.rng = space, config, np.random.default_rng(config.seed)
        settings = config.tune
        random = max(FEWEST_RANDOM, min(MOST_RANDOM, settings.num_trials // 4))
        with warnings.catch_warnings():
            # The grouped search is called experimental since 2020; without it conditions are searched one by one.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = TPESampler(
                seed=config.seed, n_startup_trials=random, multivariate=True, group=True, constant_liar=True
            )
        metric, mode = ([VALUE, LATENCY], ["max", "min"]) if settings.latency else (VALUE, "max")
        super().__init__(space=self.sample, metric=metric, mode=mode, sampler=sampler)
        first = space.first_sample(config, self.rng)
        if first is not None:
            self._enqueue(first)

    def sample(self, trial: OptunaTrial) -> Sample:
        """What a trial of the study suggests."""
        found: Sample = {}

        def choose(entry: Entry) -> Any:
            return found.setdefault(entry.name, suggest(trial, entry.name, entry.sampler))  # type: ignore[arg-type]

        self.space.walk(self.config, choose)
        return found

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """A config with a sample that the constraints allow."""
        if trial_id not in self._ot_trials:
            self._ot_trials[trial_id] = self._ask()
        return {SAMPLE: self.sample(self._ot_trials[trial_id])}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: what counts is how a trial ends."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how a trial ended."""
        wanted = [VALUE, LATENCY] if self.config.tune.latency else [VALUE]
        values = [(result or {}).get(name) for name in wanted]
        if all(isinstance(value, int | float) and np.isfinite(value) for value in values):
            super().on_trial_complete(trial_id, result, error)
        elif trial_id in self._ot_trials and trial_id not in self._completed_trials:
            # TPE ranks a pruned trial without a value last, and learns from it; several objectives cannot be pruned.
            state = TrialState.FAIL if len(wanted) > 1 else TrialState.PRUNED
            self._ot_study.tell(self._ot_trials[trial_id], state=state)
            self._completed_trials.add(trial_id)

    def _ask(self) -> OptunaTrial:
        for number in range(MOST_ASKED):
            if number == MOST_ASKED - 1:  # TPE has learnt from trials that all lie where the constraints forbid
                self._enqueue(self.space.draw(self.config, self.rng))
            trial = self._ot_study.ask()
            if self.space.allows(self.space.overrides(self.sample(trial), self.config), self.config):
                return trial
            self._ot_study.tell(trial, state=TrialState.FAIL)
        raise SpaceError(f"none of {MOST_ASKED} suggestions satisfies the constraints; loosen them")

    def _enqueue(self, sample: Sample) -> None:
        samplers = {entry.name: entry.sampler for entry in self.space.sampled}
        self._ot_study.enqueue_trial({name: point(samplers[name], value) for name, value in sample.items()})  # type: ignore[arg-type]
