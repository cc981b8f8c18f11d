"""The decision as a pure function, and the policy of production.yaml inside Ray's own delays over a simulated day."""

from collections import deque
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.serve import autoscaling_policy
from ray.serve.config import AutoscalingConfig

from ranker.serving.autoscaling import (
    ARRIVING_TOKENS,
    PENDING_TOKENS,
    TOKENS_PER_S,
    Load,
    Target,
    TokenPolicy,
    decide,
    needed,
    read_load,
)
from ranker.serving.lint import read_serve_config

PRODUCTION = Path(__file__).parents[2] / "serve_configs" / "production.yaml"
HALF = Target(utilisation=0.5, drain_s=10, pending_tokens=1000, tolerance=0.1)


@pytest.mark.parametrize(
    ("load", "replicas"),
    [
        (Load(), 0.0),
        # 2,000 tokens a second arrive, a replica reads 1,000 and shall be busy half of the time.
        (Load(arriving_tokens_per_s=2000, tokens_per_s=1000), 4.0),
        # 5,000 wait and shall be gone in 10 s: 500 a second more.
        (Load(arriving_tokens_per_s=2000, tokens_per_s=1000, pending_tokens=5000), 5.0),
        # Four requests are with replicas and four at a gateway: twice the tokens wait.
        (Load(tokens_per_s=1000, pending_tokens=5000, requests=8, queued_requests=4), 2.0),
        # Nobody has been under load yet.
        (Load(arriving_tokens_per_s=2000, pending_tokens=3000), 3.0),
    ],
)
def test_what_a_load_needs(load: Load, replicas: float):
    assert needed(load, HALF) == pytest.approx(replicas)


def test_size_counts_and_not_only_number():
    policy = Target(pending_tokens=10_000, requests=64)
    small = Load(requests=60, pending_tokens=60 * 5 * 30)
    large = Load(requests=60, pending_tokens=60 * 1000 * 30)
    assert (decide(small, policy, 1), decide(large, policy, 1)) == (1, 164)
    assert decide(Load(requests=640), policy, 1) == 10  # and very many small ones count as well


@pytest.mark.parametrize(("need", "replicas"), [(2.0, 2), (2.19, 2), (2.21, 3), (1.85, 2), (1.75, 2), (0.95, 2),
                                                (0.85, 1), (0.0, 1)])  # fmt: skip
def test_small_changes_change_nothing(need: float, replicas: int):
    load = Load(arriving_tokens_per_s=need * 500, tokens_per_s=1000)
    assert needed(load, HALF) == pytest.approx(need)
    assert decide(load, HALF, 2) == replicas


def test_replicas_are_added_up():
    metrics = {
        PENDING_TOKENS: {"a": 10.0, "b": 20.0},
        ARRIVING_TOKENS: {"a": 1.0, "b": 2.0},
        TOKENS_PER_S: {"a": 900.0, "b": 1100.0, "new": 0.0},
    }
    assert read_load(metrics, 7.0, 3.0) == Load(30.0, 3.0, 1000.0, 7.0, 3.0)
    assert read_load({}, 0.0, 0.0) == Load()


def test_impossible_targets_are_all_named():
    with pytest.raises(ValueError, match=r"utilisation 1.5.*drain_s 0.*tolerance 1"):
        TokenPolicy(utilisation=1.5, drain_s=0, tolerance=1)


class Clock:
    now = 1e9

    def time(self) -> float:
        return self.now


class Cluster:
    """Rerankers that read 1,000 tokens a second each, and start in 20 s; decisions as Ray makes them.

    Serve's own delay code runs on the simulated clock. Metrics are means over the look-back period of what was
    recorded once a second, and reach the controller every 10 s, as replicas push them.
    """

    PACE, START_S, PUSH_S, QUEUE = 1000.0, 20, 10, 25_000.0

    def __init__(self, config: AutoscalingConfig, policy, clock: Clock):
        self.config, self.clock = config, clock
        self.decide = autoscaling_policy._apply_autoscaling_config(policy)
        self.running, self.target, self.state, self.pending = config.min_replicas, config.min_replicas, {}, 0.0
        self.starting: deque = deque()
        self.recorded: deque = deque(maxlen=int(config.look_back_period_s) + 1)
        self.pushed: list = []
        self.refused = 0.0

    def second(self, arriving: float) -> int:
        self.clock.now += 1
        while self.starting and self.starting[0] <= self.clock.now:
            self.starting.popleft()
            self.running += 1
        done = min(self.pending + arriving, self.running * self.PACE)
        self.pending += arriving - done
        self.refused += max(0.0, self.pending - self.QUEUE * self.running)
        self.pending = min(self.pending, self.QUEUE * self.running)
        self.recorded.append((self.pending + done / 10, arriving))  # a batch takes a tenth of a second
        if int(self.clock.now) % self.PUSH_S == 0:
            self.pushed = list(self.recorded)
        self._scale()
        return self.target

    def _scale(self) -> None:
        pushed = self.pushed or [(0.0, 0.0)]
        pending, arriving = (sum(column) / len(pushed) for column in zip(*pushed, strict=True))
        requests = pending / 500  # of 5 documents of 100 tokens
        context = SimpleNamespace(
            current_num_replicas=self.running, target_num_replicas=self.target, policy_state=self.state,
            config=self.config, total_num_requests=requests, total_queued_requests=0.0,
            aggregated_metrics={PENDING_TOKENS: {"all": pending}, ARRIVING_TOKENS: {"all": arriving},
                                TOKENS_PER_S: {"all": self.PACE}},
        )  # fmt: skip
        wanted, self.state = self.decide(context)
        wanted = min(max(wanted, self.config.min_replicas), self.config.max_replicas)
        self.starting.extend([self.clock.now + self.START_S] * max(0, wanted - self.target))
        if wanted < self.target:
            self.running = min(self.running, wanted)
        self.target = wanted


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(autoscaling_policy, "time", clock)
    return clock


def production() -> AutoscalingConfig:
    [application] = read_serve_config(PRODUCTION)["applications"]
    [scaling] = [d["autoscaling_config"] for d in application["deployments"] if d["name"] == "Reranker"]
    return AutoscalingConfig.model_validate(scaling)


def turns(targets: list[int]) -> int:
    """How often the number of replicas changed its direction."""
    steps = [b - a for a, b in pairwise(targets) if a != b]
    return sum(a * b < 0 for a, b in pairwise(steps))


def day(cluster: Cluster) -> list[int]:
    """A quiet start, 20 minutes at two replicas' work (with a wave of 15%), and a quiet end."""
    quiet, busy = [100.0] * 300, [2000.0 + (300.0 if second % 120 < 60 else -300.0) for second in range(1200)]
    return [cluster.second(arriving) for arriving in (*quiet, *busy, *[100.0] * 900)]


def test_the_shipped_policy_follows_a_step_up_and_down_without_swinging(clock: Clock):
    config = production()
    policy = config.policy.get_policy()(**config.policy.policy_kwargs)
    cluster = Cluster(config, policy, clock)
    targets = day(cluster)
    assert targets[299] == 1
    assert max(targets[300:345]) >= 3  # within 45 s: 10 to be told, 15 of delay, and the mean must rise
    assert min(targets[345:1500]) >= 3 and turns(targets) == 1
    assert targets[-1] == 1
    assert cluster.pending < 1000


def test_a_queue_alone_and_hasty_delays_swing(clock: Clock):
    # What the policy is for: the same day with Serve's own, which sees the queue fall because it has added replicas.
    hasty = AutoscalingConfig(
        min_replicas=1, max_replicas=4, target_ongoing_requests=2, upscale_delay_s=1, downscale_delay_s=5,
        look_back_period_s=30,
    )  # fmt: skip
    targets = day(Cluster(hasty, autoscaling_policy._core_replica_queue_length_policy, clock))
    assert turns(targets) > 5


def test_an_overload_beyond_the_maximum_stays_at_the_maximum(clock: Clock):
    config = production()
    cluster = Cluster(config, TokenPolicy(**config.policy.policy_kwargs), clock)
    targets = [cluster.second(20_000.0) for _ in range(900)]
    assert targets[-1] == config.max_replicas and turns(targets) == 0
    assert cluster.refused > 0


def test_a_trickle_never_adds_a_replica(clock: Clock):
    config = production()
    cluster = Cluster(config, TokenPolicy(**config.policy.policy_kwargs), clock)
    assert {cluster.second(3000.0 if second % 20 == 0 else 0.0) for second in range(1200)} == {1}
