"""The last layer for the first token alone: what a classifier reads, computed and nothing else.

A cross-encoder of the BERT family reads its logit from the first token. Its last layer needs keys and values of
every token, but query, output and feed-forward of that one only: a seventh of the work of a six-layer model.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

# Model types whose head reads the first token and whose layers are built as BERT's.
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra")
# Largest difference of a logit that rounding explains.
ROUNDING = 1e-4


def first_token_states(
    layer: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any
) -> torch.Tensor:
    """(rows, 1, width): what a layer of the BERT family makes of the first token, from (rows, tokens, width)."""
    own = layer.attention.self
    first = hidden_states[:, :1]
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    query, key, value = (
        _heads(part(states), own.attention_head_size)
        for part, states in ((own.query, first), (own.key, hidden_states), (own.value, hidden_states))
    )
    read = _attend(query, key, value, mask, own.scaling)
    states: torch.Tensor = layer.feed_forward_chunk(layer.attention.output(read.transpose(1, 2).flatten(2), first))
    return states


def trim_last_layer(model: PreTrainedModel) -> bool:
    """Let the last layer work for the first token alone, in place; False where that would change the logits.

    Whether it would is tried, in fp32 and on the CPU, with and without padding. Weights and their names stay as they
    are, and gradients are the same: the other tokens' last states reach no logit. Dropout of attention weights is
    left out, so a model that is trained with it is not for this.
    """
    # Attention without padding has masks of another shape.
    if model.config.model_type not in FAMILIES or model.config._attn_implementation not in ("sdpa", "eager"):
        return False
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return False
    last: Any = layers[-1]
    try:
        before = probe_logits(model)
        last.forward = partial(first_token_states, last)
        difference = float((before - probe_logits(model)).abs().max())
    except (AttributeError, RuntimeError, TypeError) as error:
        difference, reason = float("inf"), str(error)
    else:
        reason = f"a logit changes by {difference:.1g}"
    if not difference <= ROUNDING:
        vars(last).pop("forward", None)
        log.info("the last layer is computed for all tokens: %s", reason)
        return False
    return True


def probe_logits(model: Any) -> torch.Tensor:
    """float32 (3, labels) of made-up ids: two rows padded together, and one alone."""
    ids, mask = probe_batch(model)
    with torch.inference_mode():
        padded = model(input_ids=ids, attention_mask=mask).logits
        return torch.cat([padded, model(input_ids=ids[:1], attention_mask=mask[:1]).logits]).float()


def probe_batch(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 ids and mask (2, 7): a full row, and one with padding."""
    config = model.config
    ids = torch.arange(2 * 7).reshape(2, 7) % (config.vocab_size - 3) + 3
    ids[ids == config.pad_token_id] = 3 if config.pad_token_id != 3 else 4
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    ids[1, 4:] = config.pad_token_id or 0
    return ids, mask


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    # A mask of booleans is one that only the fused one reads; transformers makes it where attention is fused anyway.
    if not torch.is_grad_enabled() or (mask is not None and mask.dtype == torch.bool):
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    # On a CPU the fused one's gradients take many times as long as these products of one query; elsewhere it is equal.
    scores = torch.matmul(query * scaling, key.transpose(-1, -2))
    return torch.matmul(torch.softmax(scores if mask is None else scores + mask, dim=-1), value)


def _heads(states: torch.Tensor, size: int) -> torch.Tensor:
    return states.unflatten(-1, (-1, size)).transpose(1, 2)
