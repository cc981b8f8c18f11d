"""Each document by itself."""

import torch
from torch import Tensor
from torch.nn import functional

from ranker.training.losses.matrices import mean
from ranker.training.losses.names import LOSSES


@LOSSES.register("bce")
def bce(scores: Tensor, labels: Tensor, mask: Tensor, pos_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy of each document by itself.

    Labels above 1 (graded judgements) count as 1; those between 0 and 1 are probabilities.

    Args:
        scores, labels, mask: (G, D). pos_weight: weight of a positive; the number of negatives balances a group.
    """
    weight = torch.tensor(pos_weight, device=scores.device)
    target = labels.clamp(0.0, 1.0)
    losses = functional.binary_cross_entropy_with_logits(scores, target, pos_weight=weight, reduction="none")
    return mean(losses, mask)


@LOSSES.register("mse")
def mse(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Squared distance to a teacher's logits."""
    return mean((scores - labels).square(), mask)
