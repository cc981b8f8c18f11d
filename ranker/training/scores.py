"""Scores of a batch with the model that is being trained, with and without gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ranker.scoring.batches import pad_batch, plan_batches
from ranker.training.batches import Batch

# Pairs of like length go through the model together, so that little of it is padding. On a CPU a small batch is as
# fast as a large one; an accelerator wants as much as there is.
TOKENS_PER_PASS = {"cpu": 2048, "cuda": 1 << 30}


def score_batch(
    model: Callable[..., Any], batch: Batch, pad: dict[str, int], device: torch.device, one_pass: bool
) -> tuple[Tensor, int]:
    """Scores (G, D) in fp32, 0 where the mask is False, and the number of tokens computed, padding included.

    Args:
        model: a transformers model or the engine around it. batch: the pairs. pad: column -> its padding value.
        device: of the model. one_pass: all pairs at once (ZeRO-3: workers must call the model equally often).
    """
    budget = TOKENS_PER_PASS["cuda"] if one_pass else TOKENS_PER_PASS[device.type]
    plans = plan_batches(batch.lengths.tolist(), budget)
    logits, computed = [], 0
    for rows in plans:
        inputs = pad_batch(batch.columns, rows, pad)
        computed += inputs["input_ids"].size
        tensors = {name: torch.from_numpy(values).to(device) for name, values in inputs.items()}
        logits.append(model(**tensors).logits[:, 0].float())
    back = torch.from_numpy(np.argsort(np.concatenate(plans))).to(device)
    flat = torch.cat(logits)[back]
    mask = torch.from_numpy(batch.mask).to(device)
    scores = torch.zeros(batch.mask.shape, dtype=torch.float32, device=device)
    return scores.masked_scatter(mask, flat), computed


def padding_values(tokenizer: Any) -> dict[str, int]:
    """What each input column is filled with."""
    return {
        "input_ids": tokenizer.pad_token_id or 0,
        "attention_mask": 0,
        "token_type_ids": tokenizer.pad_token_type_id,
    }
