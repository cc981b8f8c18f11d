"""What makes torch fast on a CPU, for cross-encoders and bi-encoders alike.

A plain product in bf16 brings its weights into the order that the matrix unit reads anew at every call, a quarter of
its time; every new shape of a product is compiled at its first call; memory that is let go comes back as zeroed pages.
"""

import ctypes
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

log = logging.getLogger(__name__)

# In bf16, torch's attention takes up to twice as long where the number of tokens is no multiple of this. And of few
# lengths there are few shapes, for each of which oneDNN compiles its products.
PAD_TO_MULTIPLE_OF = 16
WORTH_PADDING = 64
# Glibc gives large freed blocks back to the system, which zeroes them again for the next batch. From when a block of
# this size is freed, the largest that counts, it keeps those that are smaller (mallopt(3)).
KEPT_BLOCK = 2**25 - 2**16
# Rows of a product for which the order is chosen; it serves all others as well.
ROWS = 2048
# Largest difference of an output that the rounding of bf16 explains, as a part of the largest output.
ROUNDING = 0.05


def padded_lengths(lengths: Sequence[int] | np.ndarray, multiple: int, limit: int) -> np.ndarray:
    """int64 (n,): each length rounded up to a multiple, but where that would be above ``limit``.

    Short texts stay as they are: there padding costs more than it saves.
    """
    exact = np.asarray(lengths, dtype=np.int64)
    rounded = np.maximum(exact, np.minimum(-(-exact // multiple) * multiple, limit))
    return np.where(exact < WORTH_PADDING, exact, rounded)


def keep_freed_blocks() -> None:
    """Let the process keep the memory that a batch needed for the next one."""
    torch.empty(KEPT_BLOCK, dtype=torch.uint8)


def give_back_freed_blocks() -> None:
    """Let the system have the memory that was freed; after a load, whose matrices were larger than what stays."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc's
        trim(0)


def pack_linear_layers(model: nn.Module, probe: Callable[[], torch.Tensor], least: float = 0.0) -> bool:
    """Let every bf16 linear layer compute with packed weights, in place and for inference only.

    The plain weights are let go, so memory stays what it was. Where ``probe`` fails or changes by more than rounding
    (a model that reads a layer's weights itself, a torch without the operation), the model is left as it was.

    Args:
        model: in bf16, on the CPU. probe: gives some outputs of it, through every part of it.
        least: outputs are compared as if the largest were at least this; 1 for logits, which may all be near 0.

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
    except Exception as error:  # a model may want inputs that the probe does not have
        reason = str(error).partition("\n")[0]
    else:
        if torch.allclose(before, after, rtol=0, atol=ROUNDING * max(least, float(before.abs().max()))):
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
