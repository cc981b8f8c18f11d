"""What a sweep varies: entries of config paths, conditions between them, and constraints on all of them. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray.tune.search.sample import Domain

from ranker.config import Experiment
from ranker.tuning.expressions import Expression
from ranker.tuning.samplers import bounds, could_give, draw, every_value

# Draws after which a space is given up whose constraints nothing satisfies.
MOST_DRAWS = 2000
# A larger grid is a mistake and no plan.
MOST_OF_A_GRID = 10_000
# The options of one loss mean nothing to another.
OPTIONS_OF = {"train.loss": "train.loss_options", "train.distill.loss": "train.distill.loss_options"}

Sample = dict[str, Any]


class SpaceError(ValueError):
    """A space file that cannot be; one line a mistake."""


@dataclass(frozen=True)
class Entry:
    """One line of a space file, or one alternative of a line.

    Args:
        name: what a sample calls it: the line's own key, and ``#1``, ``#2`` behind it where it is one of several.
        paths: the config paths that it sets; of several the sampler gives a list of values.
        sampler: where the value comes from; None where it is tied or fixed.
        tied: (other path, factor): the value is that many times the other's.
        value: where it is neither sampled nor tied.
        when: path -> values; the entry counts only where all of them have one of theirs.
    """

    name: str
    paths: tuple[str, ...]
    sampler: Domain | None = None
    tied: tuple[str, float] | None = None
    value: Any = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """Paths that must be known before this one."""
        return (*self.when, *((self.tied[0],) if self.tied else ()))


@dataclass(frozen=True)
class Space:
    """What a sweep varies.

    Args:
        entries: each behind those that it needs. constraints: of which all must hold.
        first: path -> value of the first trial. plain: the file's own lines, for a fingerprint.
    """

    entries: tuple[Entry, ...]
    constraints: tuple[Expression, ...] = ()
    first: Mapping[str, Any] = field(default_factory=dict)
    plain: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sampled(self) -> list[Entry]:
        """The entries with a sampler."""
        return [entry for entry in self.entries if entry.sampler is not None]

    @property
    def paths(self) -> set[str]:
        """Every path that some trial changes."""
        return {path for entry in self.entries for path in entry.paths}

    def walk(self, config: Experiment, choose: Callable[[Entry], Any]) -> dict[str, Any]:
        """Path -> value of a trial, asking ``choose`` for each sampled entry that counts, always in one order."""
        found: dict[str, Any] = {}
        for entry in self.entries:
            # The first alternative whose condition holds is the one that counts.
            if any(path in found for path in entry.paths) or not _counts(entry, found, config):
                continue
            found.update(zip(entry.paths, _values(entry, found, config, choose), strict=True))
        return {**_forgotten_options(found, config), **found}

    def overrides(self, sample: Mapping[str, Any], config: Experiment) -> dict[str, Any]:
        """Everything that a trial changes: the sample (name of an entry -> value), what is fixed, and what is tied."""
        return self.walk(config, lambda entry: sample[entry.name])

    def allows(self, overrides: Mapping[str, Any], config: Experiment) -> bool:
        """Whether all constraints hold.

        Raises:
            ranker.tuning.expressions.ExpressionError: where one cannot be computed.
        """
        return all(constraint.holds(lambda path: looked_up(path, overrides, config)) for constraint in self.constraints)

    def draw(self, config: Experiment, rng: np.random.Generator) -> Sample:
        """A random sample that the constraints allow.

        Raises:
            SpaceError: where none was found in MOST_DRAWS.
        """
        for _ in range(MOST_DRAWS):
            sample: Sample = {}
            found = self.walk(config, lambda entry: sample.setdefault(entry.name, draw(_sampler(entry), rng)))  # noqa: B023
            if self.allows(found, config):
                return sample
        raise SpaceError(f"none of {MOST_DRAWS} draws satisfies the constraints {[c.text for c in self.constraints]}")

    def first_sample(self, config: Experiment, rng: np.random.Generator) -> Sample | None:
        """The first trial: what the file says under ``first``, else the experiment's own value where the sampler could
        give it, else drawn. None where the constraints forbid it.
        """
        for _ in range(MOST_DRAWS):
            sample: Sample = {}
            drawn = list[str]()

            def choose(entry: Entry) -> Any:
                for value in _wished(entry, self.first, config):
                    if could_give(_sampler(entry), value):
                        return sample.setdefault(entry.name, value)  # noqa: B023
                drawn.append(entry.name)  # noqa: B023
                return sample.setdefault(entry.name, draw(_sampler(entry), rng))  # noqa: B023

            if self.allows(self.walk(config, choose), config):
                return sample
            if not drawn:
                break
        return None

    def grid(self, config: Experiment) -> list[Sample]:
        """Every sample that the conditions and constraints allow, the first sampler turning slowest.

        Raises:
            SpaceError: on a sampler of infinitely many values, or more samples than MOST_OF_A_GRID.
        """
        endless = [entry.name for entry in self.sampled if every_value(_sampler(entry)) is None]
        if endless:
            raise SpaceError(
                f"search 'grid' needs samplers of few values, such as choice; not so: {', '.join(endless)}"
            )
        samples = []
        for sample in _counted(lambda choose: self.walk(config, choose)):
            if self.allows(self.overrides(sample, config), config):
                samples.append(sample)
            if len(samples) > MOST_OF_A_GRID:
                raise SpaceError(f"the grid has more than {MOST_OF_A_GRID} trials; give it fewer values")
        if not samples:
            raise SpaceError(f"the constraints leave nothing of the grid: {[c.text for c in self.constraints]}")
        return samples

    def largest(self, path: str, default: Any) -> Any:
        """The largest number that a trial may give to a path, the experiment's own ``default`` among them."""
        found = [default]
        for entry in self.entries:
            if path in entry.paths:
                found += _possible(entry, entry.paths.index(path))
        return max(found, key=lambda value: max(value) if isinstance(value, tuple | list) else value)


def looked_up(path: str, found: Mapping[str, Any], config: Experiment) -> Any:
    """The value that a path has in a trial: a changed one, else the experiment's own, else None."""
    if path in found:
        return found[path]
    value: Any = config
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value


def _wished(entry: Entry, first: Mapping[str, Any], config: Experiment) -> list[Any]:
    """Values for the first trial, the most wanted first; the sampler may give none of them."""
    own = [first.get(path, looked_up(path, {}, config)) for path in entry.paths]
    if len(own) == 1:
        return own
    return [own, *together(entry, first)]


def together(entry: Entry, first: Mapping[str, Any]) -> list[Any]:
    """The values of a joint entry that hold what is wished of its paths; none where nothing is."""
    wished = [(place, first[path]) for place, path in enumerate(entry.paths) if path in first]
    values = every_value(_sampler(entry)) or []
    return [value for value in values if wished and all(value[place] == wanted for place, wanted in wished)]


def _counts(entry: Entry, found: Mapping[str, Any], config: Experiment) -> bool:
    return all(looked_up(path, found, config) in allowed for path, allowed in entry.when.items())


def _values(entry: Entry, found: Mapping[str, Any], config: Experiment, choose: Callable[[Entry], Any]) -> list[Any]:
    if entry.tied is not None:
        other, factor = entry.tied
        value = looked_up(other, found, config) * factor
        return [int(value) if float(value).is_integer() else value]
    if entry.sampler is None:
        return [entry.value]
    value = choose(entry)
    return list(value) if len(entry.paths) > 1 else [value]


def _forgotten_options(found: Mapping[str, Any], config: Experiment) -> dict[str, Any]:
    """The experiment's own options of a loss go where a trial takes another loss."""
    return {
        options: {}
        for loss, options in OPTIONS_OF.items()
        if loss in found and found[loss] != looked_up(loss, {}, config) and looked_up(options, {}, config)
    }


def _sampler(entry: Entry) -> Domain:
    if entry.sampler is None:
        raise AssertionError(entry)
    return entry.sampler


def _possible(entry: Entry, place: int) -> list[Any]:
    if entry.sampler is None:
        return [] if entry.tied else [entry.value]
    values = every_value(entry.sampler) or [bounds(entry.sampler)[1]]
    return [value[place] for value in values] if len(entry.paths) > 1 else values


def _counted(walk: Callable[[Callable[[Entry], Any]], Any]) -> Iterator[Sample]:
    """Each way through the entries once, like the digits of a counter whose number of digits may change."""
    turns: list[list[int]] = []  # (place, number of values) of each entry that counted
    while True:
        sample: Sample = {}

        def choose(entry: Entry) -> Any:
            values = every_value(_sampler(entry)) or []
            if len(sample) == len(turns):  # noqa: B023
                turns.append([0, len(values)])
            return sample.setdefault(entry.name, values[turns[len(sample)][0]])  # noqa: B023

        walk(choose)
        yield sample
        while turns and turns[-1][0] + 1 == turns[-1][1]:
            turns.pop()
        if not turns:
            return
        turns[-1][0] += 1
