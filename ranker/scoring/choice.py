"""Which way to run a model is the best one: pure decisions on numbers that were measured."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ranker.config import ScoringConfig
from ranker.scoring.parity import Parity


@dataclass(frozen=True)
class Way:
    """One way to run a model on this machine.

    Args:
        engine: ``torch``, ``onnx`` or ``openvino``. precision: of the arithmetic; of a graph, its own.
        graph: name of the ONNX file below the model's folder; None for torch.
        lanes: batches at the same time. threads: of all lanes together.
    """

    engine: str
    precision: str
    graph: str | None
    lanes: int
    threads: int

    @property
    def kind(self) -> tuple[str, str, str | None]:
        """What decides the scores: everything but lanes and threads."""
        return self.engine, self.precision, self.graph

    def __str__(self) -> str:
        file = f" ({self.graph})" if self.graph else ""
        return f"{self.engine} {self.precision}{file}, {self.lanes} x {max(1, self.threads // self.lanes)} threads"


@dataclass(frozen=True)
class Trial:
    """What was measured of a way: pairs a second, and its parity with torch fp32 (None: it is the reference).

    Args:
        finalist: its speed was read again in turns with the other that was fastest, so only they are comparable when
            the machine was busy for a while.
    """

    way: Way
    pairs_per_second: float
    parity: Parity | None
    failure: str | None = None
    finalist: bool = False

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def why_not(trial: Trial, config: ScoringConfig) -> str | None:
    """Why a way is out, in a sentence; None where it may be chosen."""
    if trial.failure is not None:
        return trial.failure
    parity = trial.parity
    if parity is None:
        return None
    if not parity.largest_difference < float("inf"):
        return "its logits are not finite"
    if parity.rank_correlation < config.min_rank_correlation:
        return f"rank correlation {parity.rank_correlation:.4f} is below {config.min_rank_correlation:.4f}"
    if parity.ndcg_loss > config.max_ndcg_loss:
        return f"NDCG@10 falls by {parity.ndcg_loss:.4f}, allowed is {config.max_ndcg_loss:.4f}"
    return None


def fastest(trials: Sequence[Trial], config: ScoringConfig) -> Trial:
    """The fastest way inside the tolerances, of the finalists where there are any; of equal ones the first.

    Raises:
        ValueError: where none is.
    """
    allowed = [trial for trial in trials if why_not(trial, config) is None]
    if not allowed:
        reasons = "; ".join(f"{trial.way}: {why_not(trial, config)}" for trial in trials)
        raise ValueError(f"no way to run this model ranks as torch fp32 does: {reasons}")
    return max(allowed, key=lambda trial: (trial.finalist, trial.pairs_per_second))


def report(trials: Sequence[Trial], chosen: Way, config: ScoringConfig) -> list[str]:
    """One line a way, fastest first."""
    lines = []
    for trial in sorted(trials, key=lambda trial: -trial.pairs_per_second):
        parity, reason = trial.parity, why_not(trial, config)
        measured = "the reference" if parity is None else (
            f"rank correlation {parity.rank_correlation:.4f}, NDCG@10 {-parity.ndcg_loss:+.4f}, "
            f"largest difference {parity.largest_difference:.2g}"
        )  # fmt: skip
        verdict = "chosen" if trial.way == chosen else f"not allowed: {reason}" if reason else "slower"
        lines.append(f"{trial.way}: {trial.pairs_per_second:.1f} pairs/s, {measured}; {verdict}")
    return lines
