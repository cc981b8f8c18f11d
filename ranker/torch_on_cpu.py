"""What makes torch fast on a CPU, for cross-encoders and bi-encoders alike.

A plain product in bf16 brings its weights into the order that the matrix unit reads anew at every call, a quarter of
its time; every new shape of a product is compiled at its first call; memory that is let go comes back as zeroed pages.
"""

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

log = logging.getLogger(__name__)

# In bf16, torch's attention takes up to twice as long where the number of tokens is no multiple of this. And of few
# lengths there are few shapes, for each of which oneDNN compiles its products.
PAD_TO_MULTIPLE_OF = 16
# Glibc gives large freed blocks back to the system, which zeroes them again for the next batch. From when a block of
# this size is freed, the largest that counts, it keeps those that are smaller (mallopt(3)).
KEPT_BLOCK = 2**25 - 2**16
# Rows of a product for which the order is chosen; it serves all others as well.
ROWS = 2048
# Largest difference of an output that the rounding of bf16 explains, as a part of the largest output.
ROUNDING = 0.05


def keep_freed_blocks() -> None:
    """Let the process keep the memory that a batch needed for the next one."""
    torch.empty(KEPT_BLOCK, dtype=torch.uint8)


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
