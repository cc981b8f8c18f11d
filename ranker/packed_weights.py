"""Linear layers whose bf16 weights lie as the CPU's matrix unit reads them, for cross-encoders and bi-encoders alike.

A plain product in bf16 on a CPU brings its weights into that order anew at every call, a quarter of its time.
"""

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

log = logging.getLogger(__name__)

# In bf16, torch's attention takes up to twice as long where the number of tokens is no multiple of this.
PAD_TO_MULTIPLE_OF = 16
# Rows of a product for which the order is chosen; it serves all others as well.
ROWS = 2048
# Largest difference of an output that the rounding of bf16 explains, as a part of the largest output.
ROUNDING = 0.05


def pack_linear_layers(model: nn.Module, probe: Callable[[], torch.Tensor]) -> bool:
    """Let every bf16 linear layer compute with packed weights, in place and for inference only.

    The plain weights are let go, so memory stays what it was. Where ``probe`` fails or changes by more than rounding
    (a model that reads a layer's weights itself, a torch without the operation), the model is left as it was.

    Args:
        model: in bf16, on the CPU. probe: gives some outputs of it.

    Returns:
        Whether they are packed.
    """
    layers = [
        module
        for module in model.modules()
        # A layer that an adapter or a library has replaced does more than this product.
        if type(module) is nn.Linear and module.weight.dtype == torch.bfloat16 and "forward" not in vars(module)
    ]
    weights = [layer.weight for layer in layers]
    try:
        with torch.inference_mode():
            before = probe().float()
            for layer in layers:
                _pack(layer)
            after = probe().float()
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
    else:
        if torch.allclose(before, after, rtol=0, atol=ROUNDING * float(before.abs().max())):
            return bool(layers)
        reason = f"an output changes by {float((before - after).abs().max()):.1g}"
    for layer, weight in zip(layers, weights, strict=True):
        vars(layer).pop("forward", None)
        layer.weight = weight
    log.info("the weights stay as they are: %s", reason)
    return False


def _pack(layer: nn.Linear) -> None:
    # What torch.compile makes of a linear layer with frozen weights; torch has no public name for it.
    operations = torch.ops.mkldnn
    packed = operations._reorder_linear_weight(layer.weight.detach().contiguous(), ROWS)
    layer.weight = nn.Parameter(torch.empty(0, dtype=torch.bfloat16), requires_grad=False)
    layer.forward = partial(_product, operations._linear_pointwise, packed, layer.bias)  # type: ignore[method-assign]


def _product(
    operation: Callable[..., torch.Tensor], packed: torch.Tensor, bias: torch.Tensor | None, states: torch.Tensor
) -> torch.Tensor:
    return operation(states, packed, bias, "none", [], "")
