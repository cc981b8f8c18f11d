"""Linear layers whose inputs are scaled row by row, so that one scale for a whole batch suits every token.

Dynamic int8 measures one range over all tokens of a batch. One token with large values then leaves few steps for all
others, and a logit depends on what it was batched with. Divided by its own largest value before the product, and
multiplied by it afterwards, each token has a scale of its own; in fp32 that changes nothing but the rounding.
"""

import copy

import torch
from torch import nn

# Keeps a row of zeros from being divided by zero.
LEAST = 1e-12


class RowScaled(nn.Module):
    """A linear layer of the same outputs, whose product sees rows between -1 and 1."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., outputs) of (..., inputs)."""
        scale = states.abs().amax(-1, keepdim=True).clamp_min(LEAST)
        found = nn.functional.linear(states / scale, self.weight) * scale
        return found if self.bias is None else found + self.bias


def with_row_scales(model: nn.Module) -> nn.Module:
    """A copy of the model whose layers' linear parts are :class:`RowScaled`; its head stays as it is."""
    scaled = copy.deepcopy(model)
    for layers in [part for part in scaled.modules() if isinstance(part, nn.ModuleList)]:
        for part in list(layers.modules()):
            for name, child in list(part.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(part, name, RowScaled(child))
    return scaled
