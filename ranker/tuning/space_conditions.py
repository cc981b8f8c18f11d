"""Lines of a space that would silently do nothing: conditions that no trial meets, and a first trial that cannot be."""

from typing import Any

import numpy as np

from ranker.config import ConfigError, Experiment
from ranker.registry import UnknownNameError
from ranker.training.losses import loss_options
from ranker.tuning.expressions import ExpressionError
from ranker.tuning.samplers import could_give, every_value
from ranker.tuning.space import OPTIONS_OF, Entry, Space, looked_up


def unmet_conditions(entry: Entry, space: Space, config: Experiment) -> list[str]:
    """What is wrong with the ``when`` of an entry: a path that never has one of the values, or a value that is none.

    A value that the path could have, but not in this file, may stand beside others.
    """
    found = []
    for path, allowed in entry.when.items():
        sources = [other for other in space.entries if path in other.paths]
        absent = [value for value in allowed if not _occurs(path, value, sources, config)]
        if len(absent) == len(allowed):
            found.append(
                f"{entry.name}: never counts, since {path} is never {_or(absent)}; {_has(path, sources, config)}"
            )
        elif wrong := [value for value in absent if not _takes(path, value, config)]:
            found.append(f"{entry.name}: when {path} is {_or(wrong)}: no trial has that; {_has(path, sources, config)}")
    return found


def wrong_first(space: Space, config: Experiment) -> list[str]:
    """What the file says under ``first`` and the first trial would not have."""
    if not space.first:
        return []
    try:
        sample = space.first_sample(config, np.random.default_rng(config.seed))
    except ExpressionError:
        return []  # told of the constraint itself
    if sample is None:
        texts = [constraint.text for constraint in space.constraints]
        return [f"first: the constraints {texts} forbid {dict(space.first)}"]
    overrides = space.overrides(sample, config)
    # What the first trial does not set at all is wished for where its condition holds, as for another loss.
    return [
        f"first: {path}: would not be {value!r} in the first trial, but {overrides[path]!r}"
        for path, value in space.first.items()
        if path in overrides and overrides[path] != value
    ]


def _occurs(path: str, value: Any, sources: list[Entry], config: Experiment) -> bool:
    """Whether some trial may have this value."""
    if any(_gives(entry, path, value) for entry in sources):
        return True
    # Where a line without a condition sets the path, the experiment's own value never stays.
    return all(entry.when for entry in sources) and bool(looked_up(path, {}, config) == value)


def _gives(entry: Entry, path: str, value: Any) -> bool:
    if entry.tied is not None:
        return True
    if entry.sampler is None:
        return bool(entry.value == value)
    if len(entry.paths) > 1:
        place = entry.paths.index(path)
        return any(values[place] == value for values in every_value(entry.sampler) or [])
    return could_give(entry.sampler, value)


def _takes(path: str, value: Any, config: Experiment) -> bool:
    """Whether the field takes this value."""
    try:
        config.with_overrides({path: value})
        if path in OPTIONS_OF:
            loss_options(value)
    except (ConfigError, UnknownNameError, ValueError):
        return False
    return True


def _or(values: list[Any]) -> str:
    return " or ".join(repr(value) for value in values)


def _has(path: str, sources: list[Entry], config: Experiment) -> str:
    if not sources:
        return f"the experiment has {looked_up(path, {}, config)!r} and nothing here varies it"
    names = ", ".join(entry.name for entry in sources)
    known = [value for entry in sources if entry.sampler is not None and len(entry.paths) == 1
             for value in every_value(entry.sampler, 20) or []]  # fmt: skip
    return f"it takes {', '.join(map(repr, known))}" if known else f"its values come from {names}"
