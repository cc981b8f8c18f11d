"""Positives against the negatives of their group; grades above 0 are all one."""

import torch
from torch import Tensor

from ranker.training.losses.matrices import LOWEST, mean, sides
from ranker.training.losses.names import LOSSES


@LOSSES.register("lce")
def lce(scores: Tensor, labels: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Localised contrastive estimation (arXiv:2101.08751): softmax cross-entropy of a positive among its negatives.

    Of several positives each one stands against the negatives alone, and their losses are averaged.

    Args:
        scores, labels, mask: (G, D); a label above 0 is a positive. temperature: divides the scores.
    """
    scaled = scores / temperature
    positive, negative = sides(labels, mask)
    against = torch.logsumexp(scaled.masked_fill(~negative, LOWEST), dim=1, keepdim=True)
    return mean(torch.logaddexp(scaled, against) - scaled, positive)


@LOSSES.register("multiple_negatives")
@LOSSES.register("cached_multiple_negatives")
def multiple_negatives(scores: Tensor, labels: Tensor, mask: Tensor, scale: float = 10.0) -> Tensor:
    """InfoNCE (arXiv:1705.00652, section 4.4): ``lce`` of probabilities times ``scale``, with in-batch negatives.

    Documents of the batch's other queries stand in a group as its negatives before they come here. Since probabilities
    end at 0 and 1, a logit that is far out already gets hardly any gradient.

    Args:
        scores, labels, mask: (G, D); a label above 0 is a positive. scale: factor on sigmoid(scores).
    """
    return lce(scale * torch.sigmoid(scores), labels, mask)


@LOSSES.register("triplet")
def triplet(scores: Tensor, labels: Tensor, mask: Tensor, margin: float = 1.0) -> Tensor:
    """Triplet hinge on hard triplets (arXiv:1703.07737): each positive against the highest-scored negative alone.

    With one positive and one negative it is the loss ``margin``. In a larger group that one averages over all pairs,
    also those that are long in order, and knows grades; this one learns from the worst mistake alone, which is more
    to learn from when most negatives are easy, and worse when the hardest is no negative at all.

    Args:
        scores, labels, mask: (G, D); a label above 0 is a positive. margin: logits between the two.
    """
    positive, negative = sides(labels, mask)
    hardest = scores.masked_fill(~negative, LOWEST).amax(dim=1, keepdim=True)
    return mean(torch.relu(margin - scores + hardest), positive)
