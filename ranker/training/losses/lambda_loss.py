"""Pairs weighted by what they mean to NDCG."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ranker.training.losses.matrices import better, differences, discount, itself, mean_pairs, pairs, ranks
from ranker.training.losses.names import LOSSES

Scheme = Literal["none", "ndcg_loss1", "ndcg_loss2", "lambdarank", "ndcg_loss2pp"]


@LOSSES.register("lambda")
def lambda_loss(
    scores: Tensor,
    labels: Tensor,
    mask: Tensor,
    k: float = 0.0,
    sigma: float = 1.0,
    mu: float = 10.0,
    scheme: Scheme = "ndcg_loss2pp",
) -> Tensor:
    """LambdaLoss (Wang et al. 2018): RankNet in bits, each pair weighted by what it means to NDCG.

    Documents of equal score rank as if the worse stood first, and share their mean rank where the label is equal too.

    Args:
        scores, labels, mask: (G, D); the gain of a label is 2 ** label - 1, of one below 0 nothing.
        k: pairs count with one document or both among the model's first k, and NDCG is cut there. 0: all.
        sigma: factor on the differences of scores. mu: weight of ``ndcg_loss2`` in ``ndcg_loss2pp``.
        scheme: ``lambdarank``, what NDCG changes when the two swap places; ``ndcg_loss2``, the same as if one stood
            first and the other as far behind as it is; ``ndcg_loss2pp``, both; ``none``, RankNet; ``ndcg_loss1``,
            the first one's part in NDCG, for pairs with every other document, the better ones too.
    """
    scored = differences(scores)
    before = pairs(mask) & ((scored > 0) | ((scored == 0) & (differences(labels) < 0)))
    within = before.sum(dim=1) < (k or math.inf)
    compared = better(labels, mask)
    if scheme == "ndcg_loss1":
        compared = pairs(mask) & ~itself(mask) & compared.any(dim=2).any(dim=1)[:, None, None]
    weights = _weights(scheme, _gains(labels, mask, k), ranks(before, mask), mu)
    losses = weights * functional.softplus(-sigma * scored) / math.log(2)
    return mean_pairs(losses, compared & (within[:, :, None] | within[:, None, :]))


def _weights(scheme: Scheme, gains: Tensor, places: Tensor, mu: float) -> Tensor:
    """(G, D, D) weight of each pair, from the gains and the model's ranks (G, D)."""
    if scheme == "ndcg_loss1":
        return (gains * discount(places))[:, :, None]
    swapped = differences(discount(places)).abs()
    apart = differences(places).abs().clamp(min=1.0)
    behind_first = discount(apart) - discount(apart + 1)
    changes = {"ndcg_loss2": behind_first, "lambdarank": swapped, "ndcg_loss2pp": mu * behind_first + swapped}
    return torch.ones_like(swapped) if scheme == "none" else changes[scheme] * differences(gains).abs()


def _gains(labels: Tensor, mask: Tensor, k: float) -> Tensor:
    """(G, D) gains over the DCG of the best order, both divided by 2 ** highest label so that they stay finite."""
    graded = labels.masked_fill(~mask, 0.0).clamp(min=0.0)
    highest = graded.amax(dim=1, keepdim=True)
    gains = torch.exp2(graded - highest) - torch.exp2(-highest)
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    counted = discount(places).masked_fill(places > (k or math.inf), 0.0)
    ideal = (gains.sort(dim=1, descending=True).values * counted).sum(dim=1, keepdim=True)
    return gains / ideal.clamp(min=1e-10)
