"""Each better document of a group against each worse one."""

import torch
from torch import Tensor
from torch.nn import functional

from ranker.training.losses.matrices import LOWEST, better, differences, mean_pairs
from ranker.training.losses.names import LOSSES


@LOSSES.register("margin")
def margin(scores: Tensor, labels: Tensor, mask: Tensor, margin: float = 1.0) -> Tensor:
    """Hinge: each better document shall score ``margin`` logits above each worse one of its group."""
    return mean_pairs(torch.relu(margin - differences(scores)), better(labels, mask))


@LOSSES.register("ranknet")
def ranknet(scores: Tensor, labels: Tensor, mask: Tensor, sigma: float = 1.0) -> Tensor:
    """RankNet (Burges et al. 2005): logistic loss of every pair whose labels differ; graded labels welcome."""
    return mean_pairs(functional.softplus(-sigma * differences(scores)), better(labels, mask))


@LOSSES.register("margin_mse")
def margin_mse(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """MarginMSE (arXiv:2010.02666): the margin of the group's best-labelled document over each other, as the teacher's.

    Several documents with the same highest label each take a turn as the best.
    """
    highest = labels.masked_fill(~mask, LOWEST).max(dim=1, keepdim=True).values
    best = mask & (labels == highest)
    pairs = best[:, :, None] & (mask & ~best)[:, None, :]
    return mean_pairs((differences(scores) - differences(labels)).square(), pairs)
