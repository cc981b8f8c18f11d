"""How faithful an exported graph is to torch fp32, and whether that is faithful enough. Pure."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ranker.config import ExportConfig


class ParityError(RuntimeError):
    """An export that does not rank as the model does; nothing was published."""


@dataclass(frozen=True)
class Parity:
    """Torch fp32 against a graph on the same pairs.

    Args:
        recipe: how the graph was made. num_pairs: pairs compared.
        largest_difference: in logits. rank_correlation: Spearman's, over all pairs; 1 where all logits are equal.
        megabytes: of the graph with its weights.
    """

    recipe: str
    num_pairs: int
    largest_difference: float
    rank_correlation: float
    megabytes: float = 0.0

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def compare(recipe: str, torch_logits: np.ndarray, graph_logits: np.ndarray, megabytes: float = 0.0) -> Parity:
    """The parity of two lists of logits of the same pairs."""
    difference = float(np.abs(torch_logits.astype(np.float64) - graph_logits).max())
    # Spearman's of a constant list is undefined; equal lists are perfectly faithful all the same.
    flat = np.ptp(torch_logits) == 0 or np.ptp(graph_logits) == 0
    correlation = float(difference == 0.0) if flat else float(spearmanr(torch_logits, graph_logits).statistic)
    return Parity(recipe, len(torch_logits), difference, correlation, round(megabytes, 1))


# Largest difference of a logit: rounding of the kernels, of the weights, and no limit.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "int8": float("inf")}


def breach(parity: Parity, config: ExportConfig) -> str | None:
    """What is wrong with this graph, in a sentence; None where it stays inside the tolerances.

    All are held by the rank correlation; by the largest difference, too, where the config or TOLERANCE has one.
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
    "of few similar pairs lie close together; or a lower export.min_rank_correlation, if you accept another order",
}
