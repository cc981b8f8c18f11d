"""What is minimised: the configured loss, and beside it the one against the scores that the groups carry."""

import torch
from torch import Tensor

from ranker.config import TrainConfig
from ranker.measures import DEFAULT_MEASURES
from ranker.registry import nearest
from ranker.training.batches import Batch, Group, cut, widen
from ranker.training.losses import IN_BATCH, LOSSES, check_loss

# Documents of other queries beside a group's own, for the losses that live on them.
IN_BATCH_NEGATIVES = 4


def check_objective(train: TrainConfig) -> None:
    """Refuse losses, options and measures that do not exist.

    Raises:
        UnknownNameError, ValueError: naming the loss, the option or the measure, with the nearest known ones.
    """
    check_loss(train.loss, train.loss_options)
    check_loss(train.distill.loss, train.distill.loss_options)
    if train.metric not in DEFAULT_MEASURES:
        known = nearest(train.metric, [*DEFAULT_MEASURES])
        raise ValueError(f"train.metric {train.metric!r} is not measured while it trains; {known}")


def needs_scores(train: TrainConfig) -> bool:
    """Whether the groups must carry scores."""
    return train.target == "scores" or train.distill.weight > 0


def num_in_batch(train: TrainConfig) -> int:
    """Documents of the batch's other queries that a group gets."""
    if train.in_batch_negatives is not None:
        return train.in_batch_negatives
    return IN_BATCH_NEGATIVES if train.loss in IN_BATCH else 0


def prepare(groups: list[Group], train: TrainConfig, seed: tuple[int, int]) -> list[Group]:
    """The groups of a step as they are scored: cut, and with documents of each other where the loss wants them.

    Args:
        groups: all of the step, so that the result does not depend on the number of workers. seed: and step.
    """
    short = [group.take(cut(group.labels, train.group_size)) for group in groups]
    count = num_in_batch(train)
    return widen(short, count, seed) if count else short


def batch_loss(scores: Tensor, batch: Batch, train: TrainConfig) -> Tensor:
    """The loss of a batch: the configured one, and ``distill.weight`` of it against the groups' scores.

    A document without a score has no part in what is compared with scores, and a group without any counts 0 there.

    Args:
        scores: (G, D) of the model. batch: the same groups. train: the section.
    """
    labels, mask, given = (torch.from_numpy(array).to(scores.device) for array in
                           (batch.labels, batch.mask, batch.scores))  # fmt: skip
    known = mask & given.isfinite()
    given = torch.where(known, given, 0.0)
    target, compared = (given, known) if train.target == "scores" else (labels, mask)
    loss = LOSSES[train.loss](scores, target, compared, **train.loss_options)
    distill = train.distill
    if not distill.weight:
        return loss
    taught = LOSSES[distill.loss](scores, distill.scale * given, known, **distill.loss_options)
    return (1.0 - distill.weight) * loss + distill.weight * taught
