"""Which settings mattered: fANOVA (Hutter et al. 2014) as Optuna has it, over the trials that finished."""

import json
import math
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from ranker.tuning.trials import Trial

# With fewer trials a forest has nothing to learn from.
FEWEST = 5
# Numbers whose largest is so many times the smallest are read by their logarithm.
DECADE = 10.0


def importances(trials: Sequence[Trial], paths: Sequence[str], seed: int) -> dict[str, float]:
    """Path -> share of the variance of the value that it explains, the largest first; empty where that cannot be known.

    A setting that did not count in a trial (a loss's own option) stands at the middle of its values there.
    """
    finished = [trial for trial in trials if trial.score > -math.inf]
    if len(finished) < FEWEST or len({trial.value for trial in finished}) < 2:
        return {}
    columns = {path: _column([trial.overrides.get(path) for trial in finished]) for path in paths}
    known = {path: column for path, column in columns.items() if column is not None}
    if not known:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for number, trial in enumerate(finished):
        params = {path: values[number] for path, (values, _) in known.items()}
        distributions = {path: distribution for path, (_, distribution) in known.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=trial.value))
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    return {str(path): float(share) for path, share in sorted(found.items(), key=lambda pair: -pair[1])}


def _column(values: list[Any]) -> tuple[list[Any], BaseDistribution] | None:
    """The values of one setting in all trials, with what Optuna must know of them; None where they are all one."""
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        numbers = sorted(float(value) for value in present)
        low, high = numbers[0], numbers[-1]
        if low == high:
            return None
        middle = numbers[len(numbers) // 2]
        log = low > 0 and high / low >= DECADE
        return [middle if value is None else float(value) for value in values], FloatDistribution(low, high, log=log)
    texts = [json.dumps(value, default=str) for value in values]
    return (texts, CategoricalDistribution(sorted(set(texts)))) if len(set(texts)) > 1 else None
