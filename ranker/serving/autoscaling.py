"""How many rerankers the load needs, in tokens: a pure decision, and the policy that Ray Serve calls with it.

Ray Serve counts requests, and one of 1,000 documents counts as much as one of 5. Here each replica says how many tokens
arrive, how many wait and how many it reads a second. In a Serve config::

    autoscaling_config:
      policy:
        policy_function: ranker.serving.autoscaling:TokenPolicy
        policy_kwargs: {utilisation: 0.7, drain_s: 30}

Arrivals do not depend on the number of replicas, so what the policy follows does not fall because it has added one; a
queue alone would, and the number of replicas would swing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Names of what a replica records.
PENDING_TOKENS = "ranker_pending_tokens"
ARRIVING_TOKENS = "ranker_arriving_tokens_per_s"
TOKENS_PER_S = "ranker_tokens_per_s"


@dataclass(frozen=True)
class Load:
    """What all replicas of the deployment have to do, each a mean over the look-back period.

    Args:
        pending_tokens: queued or running. arriving_tokens_per_s: refused requests included.
        tokens_per_s: of one replica at full load; 0 while none has been under load.
        requests: queued or running anywhere. queued_requests: of them, those that no replica has seen.
    """

    pending_tokens: float = 0.0
    arriving_tokens_per_s: float = 0.0
    tokens_per_s: float = 0.0
    requests: float = 0.0
    queued_requests: float = 0.0

    @property
    def waiting_tokens(self) -> float:
        """Pending tokens with those of requests that wait at a gateway, which are taken to be like the others."""
        seen = self.requests - self.queued_requests
        if self.queued_requests <= 0 or seen <= 0:
            return self.pending_tokens
        return self.pending_tokens * (1 + self.queued_requests / seen)


@dataclass(frozen=True)
class Target:
    """What a replica shall have to do.

    Args:
        utilisation: share of its time. drain_s: seconds in which a queue is worked off beside what arrives.
        pending_tokens: tokens queued or running, as long as no replica knows its own pace.
        requests: requests queued or running, whatever their size. tolerance: share by which the load may be off
            before anything changes.
    """

    utilisation: float = 0.7
    drain_s: float = 30.0
    pending_tokens: float = 16_384.0
    requests: float | None = None
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        wrong = [
            f"{name} {value}: must be {allowed}"
            for name, value, right, allowed in (
                ("utilisation", self.utilisation, 0 < self.utilisation <= 1, "above 0 and at most 1"),
                ("drain_s", self.drain_s, self.drain_s > 0, "above 0"),
                ("pending_tokens", self.pending_tokens, self.pending_tokens > 0, "above 0"),
                ("tolerance", self.tolerance, 0 <= self.tolerance < 1, "from 0 to below 1"),
            )
            if not right
        ]
        if wrong:
            raise ValueError("; ".join(wrong))


def needed(load: Load, target: Target) -> float:
    """Replicas that this load needs, as a fraction."""
    if load.tokens_per_s > 0:
        work = load.arriving_tokens_per_s + load.waiting_tokens / target.drain_s
        by_tokens = work / (load.tokens_per_s * target.utilisation)
    else:
        by_tokens = load.waiting_tokens / target.pending_tokens
    by_requests = load.requests / target.requests if target.requests else 0.0
    return max(by_tokens, by_requests)


def decide(load: Load, target: Target, replicas: int) -> int:
    """The number of replicas from now on; the present one where the load is within the tolerance of it."""
    need = needed(load, target)
    at_least = math.ceil(need / (1 + target.tolerance) - 1e-9)
    at_most = math.ceil(need / (1 - target.tolerance) - 1e-9)
    return min(max(replicas, at_least), max(1, at_most))


def read_load(metrics: Mapping[str, Mapping[Any, float]], requests: float, queued: float) -> Load:
    """The load from what the replicas recorded: metric -> replica -> mean over the look-back period."""

    def values(name: str) -> list[float]:
        return list((metrics.get(name) or {}).values())

    paces = [pace for pace in values(TOKENS_PER_S) if pace > 0]
    return Load(
        pending_tokens=sum(values(PENDING_TOKENS)),
        arriving_tokens_per_s=sum(values(ARRIVING_TOKENS)),
        tokens_per_s=sum(paces) / len(paces) if paces else 0.0,
        requests=requests,
        queued_requests=queued,
    )


class TokenPolicy:
    """Ray Serve's policy for the reranker. Ray adds delays, factors and bounds of ``autoscaling_config``.

    Args:
        utilisation, drain_s, pending_tokens, tolerance: see :class:`Target`; requests are
            ``target_ongoing_requests`` of the config.
    """

    def __init__(
        self,
        utilisation: float = 0.7,
        drain_s: float = 30.0,
        pending_tokens: float = 16_384.0,
        tolerance: float = 0.1,
    ) -> None:
        self.target = Target(utilisation, drain_s, pending_tokens, None, tolerance)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Replicas wanted, given Ray's AutoscalingContext, and no state of our own."""
        load = read_load(
            context.aggregated_metrics or {}, context.total_num_requests, context.total_queued_requests or 0.0
        )
        target = Target(
            self.target.utilisation,
            self.target.drain_s,
            self.target.pending_tokens,
            context.config.target_ongoing_requests,
            self.target.tolerance,
        )
        return decide(load, target, context.target_num_replicas), {}
