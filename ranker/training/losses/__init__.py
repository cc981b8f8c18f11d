"""Losses as pure functions of a (groups x documents) score matrix.

Each takes ``scores``, ``labels`` (both float, shape (G, D)) and ``mask`` (bool, (G, D), False where a group has no
document) and returns a scalar: the mean over the G groups of the loss of a group. So every query counts the same
however many documents it has, a group with nothing to learn from (no positive, no negative) counts as 0, and a
batch cut into equal pieces gives the mean of its pieces exactly. The order of the documents does not matter.
"""

from ranker.training.losses.contrastive import lce, multiple_negatives, triplet
from ranker.training.losses.lambda_loss import Scheme, lambda_loss
from ranker.training.losses.listwise import adr_mse, listmle, listnet, p_listmle
from ranker.training.losses.names import CACHED, DISTILLATION, IN_BATCH, LOSSES, Loss, check_loss, loss_options
from ranker.training.losses.pairwise import margin, margin_mse, ranknet
from ranker.training.losses.pointwise import bce, mse

__all__ = [
    "CACHED",
    "DISTILLATION",
    "IN_BATCH",
    "LOSSES",
    "Loss",
    "Scheme",
    "adr_mse",
    "bce",
    "check_loss",
    "lambda_loss",
    "lce",
    "listmle",
    "listnet",
    "loss_options",
    "margin",
    "margin_mse",
    "mse",
    "multiple_negatives",
    "p_listmle",
    "ranknet",
    "triplet",
]
