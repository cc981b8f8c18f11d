"""All documents of a group at once."""

import torch
from torch import Tensor

from ranker.training.losses.matrices import LOWEST, better, differences, discount, itself, mean, mean_sum, ranks
from ranker.training.losses.names import LOSSES


@LOSSES.register("listnet")
def listnet(scores: Tensor, labels: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """ListNet (Cao et al. 2007): cross-entropy between softmax(labels / temperature) and softmax(scores).

    With a teacher's scores as labels it is distillation; ``temperature`` sharpens (below 1) or softens the target.
    """
    target = torch.softmax((labels / temperature).masked_fill(~mask, LOWEST), dim=1)
    predicted = torch.log_softmax(scores.masked_fill(~mask, LOWEST), dim=1)
    return mean_sum(-target * predicted, mask)


@LOSSES.register("listmle")
def listmle(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """ListMLE (Xia et al. 2008): how unlikely the order of the labels is when documents are drawn by softmax(scores).

    The paper wants a strict order. Here documents of equal label do not compete: each is drawn from itself and all
    that are worse, so nothing is learnt from an order that nobody judged, and the result is smooth in the scores.
    With labels of two kinds it is the sum over the positives of which ``lce`` is the mean.
    """
    return mean_sum(_draws(scores, labels, mask), mask)


@LOSSES.register("p_listmle")
def p_listmle(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Position-aware ListMLE (Lan et al. 2014): the draw for rank r of n counts 2 ** (n - r) - 1, all together 1.

    Documents of equal label do not compete, and each counts the mean of the ranks that they hold together.
    """
    pairs = better(labels, mask)
    number = mask.sum(dim=1, keepdim=True)
    above, reached = pairs.sum(dim=1), number - pairs.sum(dim=2)  # the ranks from above + 1 to reached are shared
    # All divided by 2 ** n, so that long lists stay finite.
    least = torch.exp2(-number.float())
    weight = (torch.exp2(-above.float()) - torch.exp2(-reached.float())) / (reached - above).clamp(min=1) - least
    total = (1 - (number + 1) * least).clamp(min=0.25)  # 0.25 is that of two documents, and one has nothing to learn
    return mean_sum(weight / total * _draws(scores, labels, mask), mask)


@LOSSES.register("adr_mse")
def adr_mse(scores: Tensor, labels: Tensor, mask: Tensor, alpha: float = 1.0) -> Tensor:
    """ADR-MSE (arXiv:2405.07920): squared distance of soft ranks to the teacher's, the top ranks counting more.

    The soft rank of a document is 1 plus the probabilities that others beat it. Documents of equal label share their
    mean rank, which equal scores attain.

    Args:
        scores, labels, mask: (G, D); only the order of the labels matters.
        alpha: factor on the differences of scores; more is nearer to ranks, with less gradient for pairs far apart.
    """
    beaten = torch.sigmoid(-alpha * differences(scores)).masked_fill(~mask[:, None, :], 0.0)
    soft = beaten.sum(dim=2) + 0.5  # the other half is that a document beats itself
    target = ranks(better(labels, mask), mask)
    return mean(discount(target) * (soft - target).square(), mask)


def _draws(scores: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """(G, D) minus the log-probability that softmax(scores) draws a document from itself and all that are worse."""
    offered = better(labels, mask) | itself(mask)
    return torch.logsumexp(scores[:, None, :].masked_fill(~offered, LOWEST), dim=2) - scores
