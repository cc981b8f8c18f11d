"""Linear layers whose inputs are scaled row by row, so that one scale for a whole batch suits every token.

Dynamic int8 measures one range over all tokens of a batch. One token with large values then leaves few steps for all
others, and a logit depends on what it was batched with. Divided by its own largest value before the product, and
multiplied by it afterwards, each token has a scale of its own. A channel that is loud in every token is made quieter
before, and its weights larger by as much (SmoothQuant, arXiv:2211.10438, alpha 0.5). In fp32 neither changes anything
but the rounding.
"""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

# Keeps a row of zeros from being divided by zero.
LEAST = 1e-12
# A channel below this is silent.
LOUDEST_LEAST = 1e-5


class RowScaled(nn.Module):
    """A linear layer of the same outputs, whose product sees rows between -1 and 1.

    Args:
        loudest: (inputs,), the largest absolute value of each channel on sample pairs; None: channels stay as they are.
    """

    def __init__(self, linear: nn.Linear, loudest: torch.Tensor | None = None) -> None:
        super().__init__()
        weight = linear.weight.detach()
        quieter = torch.ones(weight.shape[1])
        if loudest is not None:
            quieter = (loudest.clamp_min(LOUDEST_LEAST) / weight.abs().amax(0).clamp_min(LOUDEST_LEAST)).sqrt()
        self.quieter = nn.Parameter(1 / quieter, requires_grad=False)
        self.weight = nn.Parameter(weight * quieter, requires_grad=False)
        self.bias = linear.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., outputs) of (..., inputs)."""
        states = states * self.quieter
        scale = states.abs().amax(-1, keepdim=True).clamp_min(LEAST)
        found = nn.functional.linear(states / scale, self.weight) * scale
        return found if self.bias is None else found + self.bias


def with_row_scales(model: nn.Module, batches: Sequence[Mapping[str, np.ndarray]] = ()) -> nn.Module:
    """A copy of the model whose layers' linear parts are :class:`RowScaled`; its head stays as it is.

    Args:
        batches: of sample pairs, on which the loudness of channels is measured; none: it is not looked at.
    """
    scaled = copy.deepcopy(model)
    loudest = _loudest(scaled, batches)
    for layers in [part for part in scaled.modules() if isinstance(part, nn.ModuleList)]:
        for part in list(layers.modules()):
            for name, child in list(part.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(part, name, RowScaled(child, loudest.get(child)))
    return scaled


def _loudest(model: nn.Module, batches: Sequence[Mapping[str, np.ndarray]]) -> dict[nn.Module, torch.Tensor]:
    """The largest absolute value of each input channel of each linear layer."""
    found: dict[nn.Module, torch.Tensor] = {}

    def look(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen = inputs[0].detach().abs().flatten(0, -2).amax(0)
        found[layer] = torch.maximum(found[layer], seen) if layer in found else seen

    hooks = [part.register_forward_pre_hook(look) for part in model.modules() if isinstance(part, nn.Linear)]
    try:
        with torch.no_grad():
            for batch in batches:
                model(**{name: torch.from_numpy(table) for name, table in batch.items()})
    finally:
        for hook in hooks:
            hook.remove()
    return found
