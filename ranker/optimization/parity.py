"""Whether an exported graph is faithful enough to torch fp32. Pure."""

import numpy as np

from ranker.config import ExportConfig
from ranker.manifest import StageError
from ranker.scoring.parity import Parity


class ParityError(StageError):
    """An export that does not rank as the model does; nothing was published."""


# Largest difference of a logit: rounding of the kernels, of the weights, and no limit.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "int8": float("inf")}


def breach(parity: Parity, config: ExportConfig) -> str | None:
    """What is wrong with this graph, in a sentence; None where it stays inside the tolerances.

    All are held by the rank correlation and the loss in NDCG@10; by the largest difference, too, where the config or
    TOLERANCE has one.
    """
    found = []
    if not np.isfinite(parity.largest_difference):
        return "its logits are not finite"
    allowed = TOLERANCE[config.precision] if config.max_score_difference is None else config.max_score_difference
    if parity.largest_difference > allowed:
        found.append(
            f"a logit differs by {parity.largest_difference:.2g}, allowed is {allowed:.2g} "
            "(export.max_score_difference)"
        )
    if parity.rank_correlation < config.min_rank_correlation:
        found.append(
            f"Spearman's rank correlation is {parity.rank_correlation:.4f}, allowed is "
            f"{config.min_rank_correlation:.4f} (export.min_rank_correlation)"
        )
    if parity.ndcg_loss > config.max_ndcg_loss:
        found.append(
            f"NDCG@10 falls by {parity.ndcg_loss:.4f}, allowed is {config.max_ndcg_loss:.4f} (export.max_ndcg_loss)"
        )
    return "; ".join(found) or None


def refusal(tries: list[Parity], config: ExportConfig) -> ParityError:
    """The error for an export whose every recipe broke a tolerance."""
    lines = [
        f"{config.precision} does not score as torch fp32 does on {tries[0].num_pairs} sample pairs; "
        "nothing was written",
        *(f"  {parity.recipe}: {breach(parity, config)}" for parity in tries),
        f"try: {_ADVICE[config.precision]}",
    ]
    return ParityError("\n".join(lines))


_ADVICE = {
    "fp32": "another version of torch or onnxruntime; with long lists of ties, export.num_samples=256",
    "fp16": "precision fp32, or a larger export.max_score_difference if such a change of a logit is harmless to you",
    "int8": "precision fp16 or fp32; more of your own pairs (run `mine` first, export.num_samples=256), since logits "
    "of few similar pairs lie close together; more pairs to calibrate on (export.num_calibration=256); or a lower "
    "export.min_rank_correlation, if you accept another order",
}
