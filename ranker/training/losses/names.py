"""The registry of losses, what kinds there are, and the check of a name with its options."""

import inspect
from collections.abc import Callable, Mapping
from typing import get_args

from torch import Tensor

from ranker.registry import Registry, nearest

Loss = Callable[..., Tensor]
LOSSES: Registry[Loss] = Registry("loss")
# Those whose labels are a teacher's scores.
DISTILLATION = frozenset({"mse", "margin_mse", "adr_mse"})
# Those that want documents of the batch's other queries among the negatives, and of them those whose passes through
# the model are computed once more in the backward pass; whoever makes the batches and runs the model sees to both.
IN_BATCH = frozenset({"multiple_negatives", "cached_multiple_negatives"})
CACHED = frozenset({"cached_multiple_negatives"})


def loss_options(name: str) -> dict[str, float | str]:
    """The options of a loss with their defaults.

    Raises:
        UnknownNameError: listing the known losses.
    """
    return {option: parameter.default for option, parameter in _parameters(name).items()}


def check_loss(name: str, options: Mapping[str, float | str]) -> None:
    """Refuse an unknown loss, an option that this loss does not have, or a value that is none of this option.

    Raises:
        UnknownNameError: on the loss. ValueError: on its options, all at once, with the nearest known ones.
    """
    known = _parameters(name)
    mistakes = []
    for option, value in options.items():
        if option not in known:
            mistakes.append(f"loss {name!r} has no option {option!r}; {nearest(option, list(known))}")
        elif not isinstance(known[option].default, str):
            if isinstance(value, str):
                mistakes.append(f"loss {name!r} takes a number as {option!r}, not {value!r}")
        elif value not in (allowed := get_args(known[option].annotation)):
            mistakes.append(f"loss {name!r} has no {option!r} {value!r}; {nearest(str(value), list(allowed))}")
    if mistakes:
        raise ValueError("; ".join(mistakes))


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    return dict(list(inspect.signature(LOSSES[name]).parameters.items())[3:])
