"""Scores of a batch with the model that is being trained, with and without gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ranker.config import TrainConfig
from ranker.scoring.batches import pad_batch, plan_batches
from ranker.torch_on_cpu import PAD_TO_MULTIPLE_OF, padded_lengths
from ranker.training.batches import Batch
from ranker.training.losses import CACHED

# Pairs of like length go through the model together, so that little of it is padding. On a CPU in fp32 a small pass is
# as fast as a large one, and its pairs are more alike; in bf16 what a pass costs beside its products counts more, and
# an accelerator wants more still, within its memory.
TOKENS_PER_PASS = {"cpu fp32": 512, "cpu": 2048, "cuda": 32768}


@dataclass(frozen=True)
class Passes:
    """How a batch goes through the model.

    Args:
        device: of the model. tokens: of a pass, padding included.
        again: compute a pass once more in the backward pass instead of keeping what lies between (arXiv:2101.06983):
            the memory is that of one pass however many documents a loss compares.
        multiple, limit: lengths are padded to a multiple of the first, but not above the second.
        agree: (passes that this worker wants) -> passes that all make. None where workers need not call the model
            equally often.
    """

    device: torch.device
    tokens: int
    again: bool = False
    multiple: int = 1
    limit: int = 0
    agree: Callable[[int], int] | None = None

    def padded(self, lengths: np.ndarray) -> np.ndarray:
        """(pairs,) tokens of each pair with its padding in the best of batches."""
        return padded_lengths(lengths, self.multiple, self.limit)

    def plan(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Rows of each pass; where passes were agreed on, the last row may come more than once.

        Args:
            lengths: (pairs,) tokens, as :meth:`padded` gives them.
        """
        plans = plan_batches(lengths, self.tokens)
        number = self.agree(len(plans)) if self.agree else len(plans)
        if number == len(plans):
            return plans
        order = np.concatenate(plans)
        repeated = np.concatenate([order, np.full(max(0, number - len(order)), order[-1])])
        return np.array_split(repeated, number)


def score_batch(model: Callable[..., Any], batch: Batch, pad: dict[str, int], how: Passes) -> tuple[Tensor, int]:
    """Scores (G, D) in fp32, 0 where the mask is False, and the number of tokens computed, padding included.

    Args:
        model: a transformers model or the engine around it. batch: the pairs. pad: column -> its padding value.
        how: in which passes.
    """
    lengths = how.padded(batch.lengths)
    plans = how.plan(lengths)
    logits, computed = [], 0
    for rows in plans:
        inputs = pad_batch(batch.columns, rows, pad, tokens=int(lengths[rows].max()))
        computed += inputs["input_ids"].size
        tensors = {name: torch.from_numpy(values).to(how.device) for name, values in inputs.items()}
        logits.append(_again(model, tensors) if how.again else _logits(model, tensors))
    order, first = np.unique(np.concatenate(plans), return_index=True)
    flat = torch.cat(logits)
    if len(order) < len(flat):
        flat = flat + 0.0 * flat.sum()  # what is repeated counts nothing, yet every pass has its backward pass
    flat = flat[torch.from_numpy(first).to(how.device)]
    mask = torch.from_numpy(batch.mask).to(how.device)
    scores = torch.zeros(batch.mask.shape, dtype=torch.float32, device=how.device)
    return scores.masked_scatter(mask, flat), computed


def passes_of(train: TrainConfig, arithmetic: str, device: torch.device) -> Passes:
    """How the batches of a section go through the model in an arithmetic on a device."""
    kind = f"{device.type} {arithmetic}"
    tokens = train.tokens_per_pass or TOKENS_PER_PASS.get(kind, TOKENS_PER_PASS[device.type])
    multiple = PAD_TO_MULTIPLE_OF if kind == "cpu bf16" else 1
    return Passes(device, tokens, train.loss in CACHED, multiple, train.max_length)


def _logits(model: Callable[..., Any], tensors: dict[str, Tensor]) -> Tensor:
    return model(**tensors).logits[:, 0].float()


def _again(model: Callable[..., Any], tensors: dict[str, Tensor]) -> Tensor:
    return checkpoint(lambda: _logits(model, tensors), use_reentrant=False)


def padding_values(tokenizer: Any) -> dict[str, int]:
    """What each input column is filled with."""
    return {
        "input_ids": tokenizer.pad_token_id or 0,
        "attention_mask": 0,
        "token_type_ids": tokenizer.pad_token_type_id,
    }
