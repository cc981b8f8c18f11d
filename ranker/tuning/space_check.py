"""Whether an experiment takes what a space gives: looked at before anything starts, all mistakes at once."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from ranker.config import ConfigError, Experiment
from ranker.registry import UnknownNameError
from ranker.training.losses import check_loss
from ranker.tuning.expressions import ExpressionError
from ranker.tuning.samplers import bounded, examples
from ranker.tuning.space import OPTIONS_OF, Entry, Space, SpaceError
from ranker.tuning.space_conditions import unmet_conditions, wrong_first
from ranker.tuning.space_file import read_plain, read_space, told

# Random trials that are looked at, and kinds of mistakes of whole trials that are told.
PROBES, TOLD = 200, 8


def check_sweep(config: Experiment) -> None:
    """Read and check the space of an experiment, so that no stage in front of the sweep runs in vain.

    Raises:
        FileNotFoundError, SpaceError: as :func:`checked_space`.
    """
    checked_space(config)


def checked_space(config: Experiment) -> Space:
    """The space of an experiment.

    Raises:
        FileNotFoundError: where there is no such file.
        SpaceError: all mistakes at once, those of single lines and those of whole trials of the lines that can be read.
    """
    space, mistakes = read_space(read_plain(config.tune.space))
    problems = mistakes.lines + _all_problems(space, config, mistakes.paths)
    if problems:
        raise SpaceError(told(config.tune.space, problems))
    return space


def check_space(space: Space, config: Experiment) -> None:
    """Try every sampler by itself, then random trials whole, and the grid where it is asked for.

    Raises:
        SpaceError: every field that does not take what its sampler gives, every kind of configuration that cannot be,
            losses that lack an option, conditions that no trial meets, constraints that cannot be computed or that
            nothing satisfies, and a first trial that cannot be.
    """
    problems = _all_problems(space, config, set())
    if problems:
        raise SpaceError(told(config.tune.space, problems))


def _all_problems(space: Space, config: Experiment, bad: set[str]) -> list[str]:
    """Args: bad: paths whose lines are known to be wrong, of which nothing more is told."""
    endless = _endless(space, config)
    problems, bad = list(endless.values()), bad | set(endless)
    for entry in space.entries:
        if not bad & set(entry.paths) and (wrong := _misfits(entry, config)):
            problems += wrong
            bad |= set(entry.paths)
    if config.train.groups is not None and any(path.startswith("mine.") for path in space.paths):
        problems.append(
            f"mine.* varies, but train.groups {config.train.groups!r} names groups that are mined already; leave it out"
        )
    usable = _without(space, bad)
    if not usable.sampled:
        return problems
    problems += [wrong for entry in usable.entries for wrong in unmet_conditions(entry, space, config)]
    # What is wrong with a trial for lack of a line that is wrong itself would be right with it.
    names = "|".join(re.escape(path.rpartition(".")[2]) for path in bad)
    of_trials = [*_wrong_grid(usable, config), *_impossible_trials(usable, config)]
    problems += [wrong for wrong in of_trials if not (bad and re.search(rf"\b({names})\b", wrong))]
    return problems if bad else problems + wrong_first(usable, config)


def _without(space: Space, bad: set[str]) -> Space:
    """The space without these paths, and without what cannot be known without them."""
    options = tuple(f"{options}." for loss, options in OPTIONS_OF.items() if loss in bad)
    entries = [
        entry
        for entry in space.entries
        if not bad & {*entry.paths, *entry.needs} and not any(path.startswith(options) for path in entry.paths)
    ]
    constraints = [constraint for constraint in space.constraints if not bad & set(constraint.paths)]
    first = {path: value for path, value in space.first.items() if path not in bad}
    return Space(tuple(entries), tuple(constraints), first, space.plain)


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


def _endless(space: Space, config: Experiment) -> dict[str, str]:
    """Path -> what is wrong, of samplers without bounds where the search needs them."""
    if config.tune.search not in ("optuna", "pbt"):
        return {}
    entries = [entry for entry in space.sampled if entry.sampler is not None and not bounded(entry.sampler)]
    return {
        path: f"{entry.name}: search {config.tune.search!r} needs bounds, which a normal distribution has not"
        for entry in entries
        for path in entry.paths
    }


def _wrong_grid(space: Space, config: Experiment) -> list[str]:
    if config.tune.search == "grid":
        try:
            space.grid(config)
        except (SpaceError, ExpressionError) as error:
            return [str(error)]
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
