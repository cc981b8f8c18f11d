"""A loaded model in a lower precision.

Asking transformers for bf16 or fp16 while it loads sets torch's default type for the whole process meanwhile, so that a
model that answers requests in another thread would compute something else. Hence models are loaded in fp32 and lowered
here, to what loading would have made of them.
"""

import torch
from torch import nn


def lower_precision(model: nn.Module, dtype: torch.dtype) -> None:
    """Let the weights have this type, in place and one after another.

    Vectors that a model makes for itself and does not save stay in fp32, such as the frequencies of rotary positions,
    whose rounding would move far tokens (``Module.to`` rounds them); tables of positions do not. What transformers
    keeps in fp32 by name stays so.

    Args:
        model: in fp32. dtype: bfloat16 or float16; of float32 nothing is changed.
    """
    saved, kept = set(model.state_dict()), _kept_in_float32(model, dtype)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        lowered = (name in saved or tensor.dim() > 1) and not any(f".{part}." in f".{name}." for part in kept)
        if lowered and tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


def _kept_in_float32(model: nn.Module, dtype: torch.dtype) -> set[str]:
    # transformers means the first list for fp16 only, whose range is small.
    lists = ["_keep_in_fp32_modules_strict", *(["_keep_in_fp32_modules"] if dtype == torch.float16 else [])]
    modules = list(model.modules())
    return {name for module in modules for listed in lists for name in getattr(module, listed, None) or ()}
