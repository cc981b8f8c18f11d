"""What a sweep varies: a YAML file of dotted config paths, each with a sampler of Ray Tune or tied to another path.

.. code-block:: yaml

    train.learning_rate: {sampler: loguniform, lower: 1.0e-5, upper: 1.0e-3}
    train.lora.r: {sampler: choice, categories: [4, 8, 16]}
    train.lora.alpha: {multiple_of: train.lora.r, factor: 2}
    train.lora.enabled: true
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ray import tune
from ray.tune.search.sample import Domain

from ranker.config import ConfigError, Experiment, known_paths
from ranker.registry import nearest

SAMPLERS: dict[str, Callable[..., Any]] = {
    name: getattr(tune, name)
    for name in (
        "choice", "lograndint", "loguniform", "qlograndint", "qloguniform", "qrandint", "qrandn", "quniform",
        "randint", "randn", "uniform",
    )
}  # fmt: skip
# The rest of an experiment decides what a trial is compared on, or where it runs.
SECTION = "train."
# Random configurations that are checked before anything starts.
PROBES = 20


class SpaceError(ValueError):
    """A space file that cannot be; one line a mistake."""


@dataclass(frozen=True)
class Space:
    """What a sweep varies.

    Args:
        sampled: dotted path -> sampler of Ray Tune. tied: dotted path -> (other path, factor).
        fixed: dotted path -> value, the same in every trial.
        plain: the file's own lines, for a fingerprint.
    """

    sampled: dict[str, Domain]
    tied: dict[str, tuple[str, float]] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    plain: Mapping[str, Any] = field(default_factory=dict)

    def overrides(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that a trial changes: the sample, the fixed values, and what is tied to them."""
        chosen = {**self.fixed, **sample}
        for path, (other, factor) in self.tied.items():
            value = chosen[other] * factor
            chosen[path] = int(value) if float(value).is_integer() else value
        return chosen

    def check(self, config: Experiment) -> None:
        """Try some random samples on an experiment, so that a sweep does not start with one that cannot be.

        Raises:
            SpaceError: with the mistake of the first sample that the config refuses.
        """
        for _ in range(PROBES):
            sample = {path: domain.sample() for path, domain in self.sampled.items()}
            overrides = self.overrides(sample)
            try:
                config.with_overrides(overrides)
            except ConfigError as error:
                raise SpaceError(f"the space holds a configuration that cannot be, {overrides}: {error}") from error


def load_space(path: str | Path) -> Space:
    """Read a space file.

    Raises:
        FileNotFoundError: where there is no such file.
        SpaceError: all mistakes at once: unknown paths and samplers with the nearest names, bad arguments, bad ties.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such space file; the ones that ship are in tune_spaces/")
    try:
        plain = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpaceError(f"{file}: not YAML: {error}") from error
    if not isinstance(plain, dict) or not plain:
        raise SpaceError(f"{file}: must hold lines such as 'train.learning_rate: {{sampler: loguniform, ...}}'")
    return parse_space(plain, str(file))


def parse_space(plain: Mapping[str, Any], where: str = "space") -> Space:
    """The space of a plain mapping, checked as :func:`load_space` does."""
    space, problems = Space({}, plain=plain), list[str]()
    for path, value in plain.items():
        problem = _check_path(str(path)) or _add(space, str(path), value)
        if problem:
            problems.append(f"{path}: {problem}")
    for path, (other, _) in space.tied.items():
        if other not in space.sampled and other not in space.fixed and other not in plain:
            known = sorted({*space.sampled, *space.fixed})
            problems.append(f"{path}: multiple_of {other!r} is not a path of this file; {nearest(other, known)}")
        elif other in space.tied:
            problems.append(f"{path}: multiple_of {other!r} is itself tied; name {space.tied[other][0]!r}")
    if not space.sampled and not problems:
        problems.append("nothing is sampled, so that all trials would be one; give a path a sampler")
    if problems:
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise SpaceError("\n".join([f"{where}: {count}", *(f"  {problem}" for problem in problems)]))
    return space


def _check_path(path: str) -> str | None:
    tunable = [known for known in known_paths() if known.startswith(SECTION)]
    # The options of a loss are an open mapping: their names are the loss's own, checked when a trial starts.
    if path in tunable or path.startswith("train.loss_options."):
        return None
    if path in known_paths():
        return f"only {SECTION}* may vary: trials are compared on the same data, with the same measure"
    return f"unknown; {nearest(path, tunable)}"


def _add(space: Space, path: str, value: Any) -> str | None:
    """File one line; a sentence when it cannot be."""
    if not isinstance(value, dict):
        space.fixed[path] = value
        return None
    if "sampler" in value:
        return _add_sampler(space, path, value)
    if "multiple_of" in value:
        return _add_tie(space, path, value)
    if path == "train.loss_options":
        space.fixed[path] = value
        return None
    return f"{value} names neither a sampler nor multiple_of; samplers: {', '.join(SAMPLERS)}"


def _add_sampler(space: Space, path: str, value: Mapping[str, Any]) -> str | None:
    name, arguments = value["sampler"], {key: _number(entry) for key, entry in value.items() if key != "sampler"}
    if name not in SAMPLERS:
        return f"unknown sampler {name!r}; {nearest(str(name), list(SAMPLERS))}"
    if wrong := _wrong_arguments(name, arguments):
        return wrong
    try:
        domain = SAMPLERS[name](**arguments)
        domain.sample()
    except (TypeError, ValueError, ArithmeticError) as error:
        return f"{name}({_spell(arguments)}): {error}"
    space.sampled[path] = domain
    return None


def _number(value: Any) -> Any:
    """``1e-5`` is text in YAML 1.1, which wants ``1.0e-5``; everybody writes it all the same."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _wrong_arguments(name: str, arguments: Mapping[str, Any]) -> str | None:
    """Ray accepts ``lower`` above ``upper`` and bounds that are text; the trials would fail."""
    parameters = inspect.signature(SAMPLERS[name]).parameters
    unknown = [key for key in arguments if key not in parameters]
    missing = [
        key for key, entry in parameters.items() if entry.default is inspect.Parameter.empty and key not in arguments
    ]
    if unknown or missing:
        lack = f"lacks {missing}" if missing else f"does not take {unknown}"
        return f"{name} {lack}; it takes {', '.join(parameters)}"
    if name == "choice":
        categories = arguments["categories"]
        return None if isinstance(categories, list) and categories else f"categories {categories!r} must be a list"
    texts = [f"{key} {entry!r}" for key, entry in arguments.items() if not isinstance(entry, int | float)]
    if texts:
        return f"{' and '.join(texts)} must be a number"
    if "lower" in arguments and arguments["lower"] >= arguments["upper"]:
        return f"lower {arguments['lower']} must be below upper {arguments['upper']}"
    return None


def _add_tie(space: Space, path: str, value: Mapping[str, Any]) -> str | None:
    unknown = sorted(value.keys() - {"multiple_of", "factor"})
    factor = value.get("factor", 1)
    if unknown or not isinstance(factor, int | float) or isinstance(factor, bool):
        return f"write {{multiple_of: PATH, factor: NUMBER}}, not {dict(value)}"
    space.tied[path] = (str(value["multiple_of"]), factor)
    return None


def _spell(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={entry!r}" for key, entry in arguments.items())
