"""Whether an experiment takes what a space gives: looked at before anything starts, all mistakes at once."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ranker.config import ConfigError, Experiment
from ranker.registry import UnknownNameError
from ranker.training.losses import check_loss
from ranker.tuning.expressions import ExpressionError
from ranker.tuning.samplers import bounded, examples
from ranker.tuning.space import Entry, Space, SpaceError
from ranker.tuning.space_file import load_space, told

# Random trials that are looked at, and kinds of mistakes of whole trials that are told.
PROBES, TOLD = 200, 8


def check_sweep(config: Experiment) -> None:
    """Read and check the space of an experiment, so that no stage in front of the sweep runs in vain.

    Raises:
        FileNotFoundError, SpaceError: as :func:`load_space` and :func:`check_space`.
    """
    check_space(load_space(config.tune.space), config)


def check_space(space: Space, config: Experiment) -> None:
    """Try every sampler by itself, then random trials whole, and the grid where it is asked for.

    Raises:
        SpaceError: every field that does not take what its sampler gives, every kind of configuration that cannot be,
            losses that lack an option, constraints that cannot be computed or that nothing satisfies.
    """
    problems = [problem for entry in space.entries for problem in _misfits(entry, config)]
    problems += _unfit_for_search(space, config)
    if config.train.groups is not None and any(path.startswith("mine.") for path in space.paths):
        problems.append(
            f"mine.* varies, but train.groups {config.train.groups!r} names groups that are mined already; leave it out"
        )
    # A value that no field takes would only be told again by every trial that holds it.
    problems = problems or _impossible_trials(space, config)
    if problems:
        raise SpaceError(told(config.tune.space, problems))


def check_trial(config: Experiment) -> None:
    """Refuse a trial's config that training would refuse at once.

    Raises:
        UnknownNameError, ValueError: naming loss, option or field.
    """
    check_loss(config.train.loss, config.train.loss_options)
    check_loss(config.train.distill.loss, config.train.distill.loss_options)
    if config.tune.scheduler != "none" and config.train.evaluate_every is None:
        raise ValueError(
            f"tune.scheduler {config.tune.scheduler!r} stops trials by their measurements, and train.evaluate_every is "
            "null, so that there is one at the end only; set it to about a tenth of the steps"
        )


def _misfits(entry: Entry, config: Experiment) -> list[str]:
    """Mistakes of the entry's own fields, whatever the others are."""
    if entry.tied is not None:
        return []
    values = examples(entry.sampler) if entry.sampler is not None else [entry.value]
    found = dict[str, None]()
    for value in values:
        parts = value if len(entry.paths) > 1 else [value]
        try:
            config.with_overrides(dict(zip(entry.paths, parts, strict=True)))
        except ConfigError as error:
            for line in str(error).splitlines()[1:]:
                if any(line.strip().startswith((f"{path}:", f"{path}.")) for path in entry.paths):
                    found.setdefault(line.strip())
    told_first = list(found)[:1]
    return [
        f"{entry.name}: {line}{f' (and {len(found) - 1} more values)' if len(found) > 1 else ''}" for line in told_first
    ]


def _unfit_for_search(space: Space, config: Experiment) -> list[str]:
    if config.tune.search == "grid":
        try:
            space.grid(config)
        except (SpaceError, ExpressionError) as error:
            return [str(error)]
    if config.tune.search in ("optuna", "pbt"):
        endless = [e.name for e in space.sampled if e.sampler is not None and not bounded(e.sampler)]
        return [
            f"{name}: search {config.tune.search!r} needs bounds, which a normal distribution has not"
            for name in endless
        ]
    return []


def _impossible_trials(space: Space, config: Experiment) -> list[str]:
    rng = np.random.default_rng(config.seed)
    counts = dict[str, int]()
    shown = dict[str, dict[str, Any]]()
    for number in range(PROBES):
        try:
            sample = space.draw(config, rng) if number else space.first_sample(config, rng) or space.draw(config, rng)
        except (SpaceError, ExpressionError) as error:
            return [str(error)]
        overrides = space.overrides(sample, config)
        for problem in _problems(config, overrides):
            counts[problem] = counts.get(problem, 0) + 1
            shown.setdefault(problem, overrides)
    return [
        f"{problem}; so in {count} of {PROBES} draws, for instance {shown[problem]}: narrow a sampler, or add a "
        "constraint or a condition (when)"
        for problem, count in sorted(counts.items(), key=lambda pair: -pair[1])[:TOLD]
    ]


def _problems(config: Experiment, overrides: dict[str, Any]) -> Iterable[str]:
    try:
        changed = config.with_overrides(overrides)
    except ConfigError as error:
        return [line.strip() for line in str(error).splitlines()[1:]]
    try:
        check_trial(changed)
    except (ValueError, UnknownNameError) as error:
        return [str(error)]
    return []
