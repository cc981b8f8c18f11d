"""The last layer for the first token alone: what a classifier reads, computed and nothing else.

A cross-encoder of the BERT family reads its logit from the first token. Its last layer needs keys and values of
every token, but query, output and feed-forward of that one only: a seventh of the work of a six-layer model.
"""

import logging
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

log = logging.getLogger(__name__)

# Model types whose head reads the first token and whose layers are built as BERT's.
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "electra")
# Largest difference of a logit that rounding explains.
ROUNDING = 1e-4


class FirstTokenLayer(nn.Module):
    """A layer of the BERT family that gives (rows, 1, width): the first token's state, from all tokens' states."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer: Any = layer

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any
    ) -> torch.Tensor:
        """(rows, 1, width) of (rows, tokens, width)."""
        attention, own = self.layer.attention, self.layer.attention.self
        first = hidden_states[:, :1]
        mask = None if attention_mask is None else attention_mask[:, :, :1]
        query, key, value = (
            _heads(part(states), own.attention_head_size)
            for part, states in ((own.query, first), (own.key, hidden_states), (own.value, hidden_states))
        )
        read = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=own.scaling)
        return self.layer.feed_forward_chunk(attention.output(read.transpose(1, 2).flatten(2), first))


def trim_last_layer(model: PreTrainedModel) -> bool:
    """Replace the last layer by a :class:`FirstTokenLayer`, in place; False where that would change the logits.

    Whether it would is tried, in fp32 and on the CPU, with and without padding.
    """
    if model.config.model_type not in FAMILIES:
        return False
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return False
    last = layers[-1]
    try:
        before = _probe(model)
        layers[-1] = FirstTokenLayer(last)
        difference = float((before - _probe(model)).abs().max())
    except (AttributeError, RuntimeError, TypeError) as error:
        difference, reason = float("inf"), str(error)
    else:
        reason = f"a logit changes by {difference:.1g}"
    if not difference <= ROUNDING:
        layers[-1] = last
        log.info("the last layer is computed for all tokens: %s", reason)
        return False
    return True


def _probe(model: Any) -> torch.Tensor:
    config = model.config
    ids = torch.arange(2 * 7).reshape(2, 7) % (config.vocab_size - 3) + 3
    ids[ids == config.pad_token_id] = 3 if config.pad_token_id != 3 else 4
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    ids[1, 4:] = config.pad_token_id or 0
    with torch.inference_mode():
        padded = model(input_ids=ids, attention_mask=mask).logits
        return torch.cat([padded, model(input_ids=ids[:1], attention_mask=mask[:1]).logits]).float()


def _heads(states: torch.Tensor, size: int) -> torch.Tensor:
    return states.unflatten(-1, (-1, size)).transpose(1, 2)
