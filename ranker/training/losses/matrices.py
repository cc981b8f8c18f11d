"""What losses are made of: means behind a mask, pairs (first, second) of a group's documents, ranks."""

import torch
from torch import Tensor

LOWEST = -1e9  # finite, since -inf makes NaN gradients where a whole row is masked


def mean(losses: Tensor, mask: Tensor) -> Tensor:
    """Mean over the groups of the mean of a group; 0 of one without a True."""
    kept = losses.masked_fill(~mask, 0.0).sum(dim=1)
    return (kept / mask.sum(dim=1).clamp(min=1)).mean()


def mean_pairs(losses: Tensor, mask: Tensor) -> Tensor:
    """The same of pairs (G, D, D)."""
    return mean(losses.flatten(1), mask.flatten(1))


def mean_sum(losses: Tensor, mask: Tensor) -> Tensor:
    """Mean over the groups of the sum of a group."""
    return losses.masked_fill(~mask, 0.0).sum(dim=1).mean()


def differences(matrix: Tensor) -> Tensor:
    """(G, D, D) the first's value minus the second's."""
    return matrix[:, :, None] - matrix[:, None, :]


def pairs(mask: Tensor) -> Tensor:
    """(G, D, D) whether both are there."""
    return mask[:, :, None] & mask[:, None, :]


def better(labels: Tensor, mask: Tensor) -> Tensor:
    """(G, D, D) whether the first has the higher label."""
    return (differences(labels) > 0) & pairs(mask)


def itself(mask: Tensor) -> Tensor:
    """(D, D) whether both are the same document."""
    return torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)


def sides(labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(G, D) positives (label above 0) that have a negative in their group, and negatives."""
    negative = mask & (labels <= 0)
    return mask & (labels > 0) & negative.any(dim=1, keepdim=True), negative


def ranks(before: Tensor, mask: Tensor) -> Tensor:
    """(G, D) ranks from 1; documents of which none is before the other share the mean of theirs.

    Args:
        before: (G, D, D) whether the first is before the second. mask: (G, D).
    """
    return (mask.sum(dim=1, keepdim=True) + 1 + before.sum(dim=1) - before.sum(dim=2)) / 2


def discount(places: Tensor) -> Tensor:
    """What a gain at these ranks counts in NDCG."""
    return 1 / torch.log2(1.0 + places)
