"""The attention mask of a batch, made once instead of in every layer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from ranker.scoring.first_token import FAMILIES, ROUNDING, probe_batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


def additive_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """(rows, 1, tokens, tokens): 0 where a token may be read, the least number where not; None where all may.

    A mask of truth values is turned into this by every layer's attention anew, and one of zeros is read for nothing.

    Args:
        mask: int64 (rows, tokens), 1 for tokens and 0 for padding.
    """
    if bool(mask.all()):
        return None
    rows, tokens = mask.shape
    added = torch.zeros(rows, 1, 1, tokens, dtype=dtype).masked_fill_(mask[:, None, None] == 0, torch.finfo(dtype).min)
    return added.expand(rows, 1, tokens, tokens)


def takes_additive_mask(model: PreTrainedModel) -> bool:
    """Whether a model in fp32 on the CPU gives the same logits with :func:`additive_mask`; it is tried."""
    if model.config.model_type not in FAMILIES or model.config._attn_implementation != "sdpa":
        return False
    ids, mask = probe_batch(model)
    try:
        with torch.inference_mode():
            exact = model(input_ids=ids, attention_mask=mask).logits
            found = model(input_ids=ids, attention_mask=additive_mask(mask, exact.dtype)).logits
            whole = model(input_ids=ids[:1], attention_mask=None).logits
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        log.info("the mask is left to the model: %s", error)
        return False
    return float((torch.cat([found, whole]) - torch.cat([exact, exact[:1]])).abs().max()) <= ROUNDING
