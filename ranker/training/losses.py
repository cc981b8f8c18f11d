"""Losses as pure functions of a (groups x documents) score matrix.

Each takes ``scores``, ``labels`` (both float, shape (G, D)) and ``mask`` (bool, (G, D), False where a group is
shorter) and returns a scalar: the mean over the G groups of the loss of a group. So every query counts the same
however many documents it has, a group with nothing to learn from (no positive, no negative) counts as 0, and a
batch cut into equal pieces gives the mean of its pieces exactly.
"""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ranker.registry import Registry, nearest

Loss = Callable[..., Tensor]
LOSSES: Registry[Loss] = Registry("loss")


def loss_options(name: str) -> dict[str, float]:
    """The options of a loss with their defaults.

    Raises:
        UnknownNameError: listing the known losses.
    """
    parameters = list(inspect.signature(LOSSES[name]).parameters.values())[3:]
    return {parameter.name: parameter.default for parameter in parameters}


def check_loss(name: str, options: dict[str, float]) -> None:
    """Refuse an unknown loss, or an option that this loss does not have.

    Raises:
        UnknownNameError: on the loss. ValueError: on its options, with the nearest known ones.
    """
    known = loss_options(name)
    for option in options:
        if option not in known:
            raise ValueError(f"loss {name!r} has no option {option!r}; {nearest(option, list(known))}")


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
    return _mean(losses, mask)


@LOSSES.register("lce")
def lce(scores: Tensor, labels: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Localised contrastive estimation (arXiv:2101.08751): softmax cross-entropy of a positive among its negatives.

    Of several positives each one stands against the negatives alone, and their losses are averaged.

    Args:
        scores, labels, mask: (G, D); a label above 0 is a positive. temperature: divides the scores.
    """
    scaled = scores / temperature
    positive, negative = mask & (labels > 0), mask & (labels <= 0)
    against = torch.logsumexp(scaled.masked_fill(~negative, _LOWEST), dim=1, keepdim=True)
    losses = torch.logaddexp(scaled, against) - scaled
    return _mean(losses, positive & negative.any(dim=1, keepdim=True))


@LOSSES.register("margin")
def margin(scores: Tensor, labels: Tensor, mask: Tensor, margin: float = 1.0) -> Tensor:
    """Hinge: each better document shall score ``margin`` logits above each worse one of its group."""
    return _mean_pairs(torch.relu(margin - _differences(scores)), _better(labels, mask))


@LOSSES.register("ranknet")
def ranknet(scores: Tensor, labels: Tensor, mask: Tensor, sigma: float = 1.0) -> Tensor:
    """RankNet (Burges et al. 2005): logistic loss of every pair whose labels differ; graded labels welcome."""
    return _mean_pairs(functional.softplus(-sigma * _differences(scores)), _better(labels, mask))


@LOSSES.register("listnet")
def listnet(scores: Tensor, labels: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """ListNet (Cao et al. 2007): cross-entropy between softmax(labels / temperature) and softmax(scores).

    With a teacher's scores as labels it is distillation; ``temperature`` sharpens (below 1) or softens the target.
    """
    target = torch.softmax((labels / temperature).masked_fill(~mask, _LOWEST), dim=1)
    predicted = torch.log_softmax(scores.masked_fill(~mask, _LOWEST), dim=1)
    return -(target * predicted).masked_fill(~mask, 0.0).sum(dim=1).mean()


@LOSSES.register("mse")
def mse(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Squared distance to a teacher's logits."""
    return _mean((scores - labels).square(), mask)


@LOSSES.register("margin_mse")
def margin_mse(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """MarginMSE (arXiv:2010.02666): the margin of the group's best-labelled document over each other, as the teacher's.

    Several documents with the same highest label each take a turn as the best.
    """
    highest = labels.masked_fill(~mask, _LOWEST).max(dim=1, keepdim=True).values
    best = mask & (labels == highest)
    pairs = best[:, :, None] & (mask & ~best)[:, None, :]
    return _mean_pairs((_differences(scores) - _differences(labels)).square(), pairs)


_LOWEST = -1e9  # finite, since -inf makes NaN gradients where a whole row is masked


def _differences(matrix: Tensor) -> Tensor:
    return matrix[:, :, None] - matrix[:, None, :]


def _better(labels: Tensor, mask: Tensor) -> Tensor:
    return (_differences(labels) > 0) & mask[:, :, None] & mask[:, None, :]


def _mean(losses: Tensor, mask: Tensor) -> Tensor:
    kept = losses.masked_fill(~mask, 0.0).sum(dim=1)
    return (kept / mask.sum(dim=1).clamp(min=1)).mean()


def _mean_pairs(losses: Tensor, mask: Tensor) -> Tensor:
    return _mean(losses.flatten(1), mask.flatten(1))
