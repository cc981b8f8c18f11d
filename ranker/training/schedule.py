"""How the learning rate moves; a pure function of the step, so that a resumed run needs no state for it."""

import math
from typing import Literal


def rate_factor(step: int, total: int, warmup_ratio: float, schedule: Literal["linear", "cosine", "constant"]) -> float:
    """The share of the peak rate in optimiser step ``step`` (from 0) of ``total``.

    It rises linearly over ``warmup_ratio`` of the steps, reaches 1 and falls as ``schedule`` says, towards 0 after
    the last step. The first step already learns.
    """
    warmup = math.ceil(total * warmup_ratio)
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, total - warmup)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
