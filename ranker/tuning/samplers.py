"""Ray Tune's samplers by name: made from a line of a space file, drawn from with a seed, told to Optuna."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ray import tune
from ray.tune.search.sample import Categorical, Domain, Float, Integer, LogUniform, Quantized

from ranker.registry import nearest

SAMPLERS: dict[str, Callable[..., Any]] = {
    name: getattr(tune, name)
    for name in (
        "choice", "lograndint", "loguniform", "qlograndint", "qloguniform", "qrandint", "qrandn", "quniform",
        "randint", "randn", "uniform",
    )
}  # fmt: skip


def make_sampler(line: Mapping[str, Any]) -> Domain | str:
    """The sampler of ``{sampler: loguniform, lower: 1e-5, upper: 1e-3}``, or a sentence that says why there is none."""
    name, arguments = str(line["sampler"]), {key: number(value) for key, value in line.items() if key != "sampler"}
    if name not in SAMPLERS:
        return f"unknown sampler {name!r}; {nearest(name, list(SAMPLERS))}"
    if wrong := _wrong_arguments(name, arguments):
        return wrong
    try:
        domain: Domain = SAMPLERS[name](**arguments)
        draw(domain, np.random.default_rng(0))
    except (TypeError, ValueError, ArithmeticError, AssertionError) as error:
        return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())}): {error}"
    return domain


def number(value: Any) -> Any:
    """A number that is written as text, as a number: ``1e-5`` is text in YAML 1.1, which wants ``1.0e-5``."""
    if isinstance(value, list):
        return [number(entry) for entry in value]
    if isinstance(value, dict):
        return {key: number(entry) for key, entry in value.items()}
    try:
        found = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return value if isinstance(found, float) and not math.isfinite(found) else found


def draw(domain: Domain, rng: np.random.Generator) -> Any:
    """A value as Ray Tune draws it, as a plain Python object."""
    if isinstance(domain, Categorical):
        return domain.categories[int(rng.integers(len(domain.categories)))]  # NumPy would turn lists into arrays
    return plain(domain, domain.sample(random_state=rng))


def plain(domain: Domain, value: Any) -> Any:
    """The value with the type of the domain, within its bounds, and a multiple of what it is rounded to."""
    if isinstance(domain, Categorical):
        return value
    step = domain.get_sampler().q if isinstance(domain.get_sampler(), Quantized) else None
    low, high = bounds(domain)
    found = float(value) if step is None else round(float(value) / step) * step
    found = min(max(found, low), high)
    return round(found) if isinstance(domain, Integer) else float(f"{found:.12g}")


def bounds(domain: Domain) -> tuple[float, float]:
    """Lowest and highest value of a sampler of numbers; Ray's ``randint`` never gives its upper bound."""
    quantized = isinstance(domain.get_sampler(), Quantized)
    numbers: Any = domain
    upper = numbers.upper - 1 if isinstance(domain, Integer) and not quantized else numbers.upper
    return float(numbers.lower), float(upper)


def is_log(domain: Domain) -> bool:
    """Whether equal factors are equally likely."""
    sampler = domain.get_sampler()
    return isinstance(sampler.sampler if isinstance(sampler, Quantized) else sampler, LogUniform)


def bounded(domain: Domain) -> bool:
    """False for normal distributions."""
    return isinstance(domain, Categorical) or all(math.isfinite(bound) for bound in bounds(domain))


def every_value(domain: Domain, most: int = 1000) -> list[Any] | None:
    """All that the sampler can give, ascending; None where that are infinitely many, or more than ``most``."""
    if isinstance(domain, Categorical):
        return list(domain.categories)
    sampler, (low, high) = domain.get_sampler(), bounds(domain)
    step = sampler.q if isinstance(sampler, Quantized) else 1 if isinstance(domain, Integer) else None
    if step is None or not math.isfinite(high - low) or (high - low) / step >= most:
        return None
    return [plain(domain, low + step * place) for place in range(int((high - low) / step + 1e-9) + 1)]


def could_give(domain: Domain, value: Any) -> bool:
    """Whether the sampler could draw this value."""
    if isinstance(domain, Categorical):
        return value in domain.categories
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(domain, Integer) and not float(value).is_integer():
        return False
    low, high = bounds(domain)
    return low <= value <= high and math.isclose(plain(domain, value), value, rel_tol=1e-9)


def examples(domain: Domain) -> list[Any]:
    """Values that show whether a field takes what the sampler gives: all categories, or both ends and some between."""
    if isinstance(domain, Categorical):
        return list(domain.categories)
    rng = np.random.default_rng(0)
    ends = [plain(domain, bound) for bound in bounds(domain)] if bounded(domain) else []
    return ends + [draw(domain, rng) for _ in range(3)]


def suggest(trial: Any, name: str, domain: Domain) -> Any:
    """A value that an Optuna trial suggests.

    Categories are told by their place, since Optuna takes no lists, and 1 and True are one to it.
    """
    if isinstance(domain, Categorical):
        return domain.categories[trial.suggest_categorical(name, list(range(len(domain.categories))))]
    low, high = bounds(domain)
    if isinstance(domain, Float):
        return plain(domain, trial.suggest_float(name, low, high, log=is_log(domain)))
    return plain(domain, trial.suggest_int(name, round(low), round(high), log=is_log(domain)))


def point(domain: Domain, value: Any) -> Any:
    """The value as :func:`suggest` told it to Optuna."""
    return domain.categories.index(value) if isinstance(domain, Categorical) else value


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
    texts = [f"{key} {entry!r}" for key, entry in arguments.items() if not _is_number(entry)]
    if texts:
        return f"{' and '.join(texts)} must be a number"
    if "lower" in arguments and arguments["lower"] >= arguments["upper"]:
        return f"lower {arguments['lower']} must be below upper {arguments['upper']}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
