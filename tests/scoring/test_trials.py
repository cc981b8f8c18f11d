"""What is measured: each way by itself, the fastest two that are faithful in turns, never all at once in memory."""

import time
import weakref

import numpy as np
import pytest
from transformers import AutoTokenizer

from ranker.config import ScoringConfig
from ranker.scoring import trials
from ranker.scoring.choice import Way, fastest, why_not
from ranker.scoring.lanes import Lanes
from ranker.scoring.samples import Samples, builtin_pairs
from ranker.scoring.trials import try_ways

PACE = {"fp32": 0.004, "bf16": 0.002, "fp16": 0.001, "int8": 0.0}
WAYS = [
    *(Way("torch", "fp32", None, lanes, 2) for lanes in (1, 2)),
    *(Way("torch", "bf16", None, lanes, 2) for lanes in (1, 2)),
    Way("torch", "fp16", None, 1, 2),
    *(Way("onnx", "int8", "model.onnx", lanes, 2) for lanes in (1, 2)),
]


class Machine:
    """Engines whose batches take a known time; int8 is the fastest and turns every order round."""

    def __init__(self) -> None:
        self.alive: weakref.WeakSet[Machine.Engine] = weakref.WeakSet()
        self.most = 0

    def __call__(self, way: Way) -> "Machine.Engine":
        if way.precision == "fp16":
            raise RuntimeError("no such instruction")
        engine = self.Engine(way)
        self.alive.add(engine)
        self.most = max(self.most, len(self.alive))
        return engine

    class Engine:
        device = "cpu"
        pad_to_multiple_of = 1

        def __init__(self, way: Way) -> None:
            self.name, self.precision = way.engine, way.precision
            self.lanes = Lanes(way.lanes, way.threads, torch_threads=False)

        def logits(self, batch) -> np.ndarray:
            time.sleep(PACE[self.precision])
            found = batch["input_ids"].sum(1).astype(np.float32)
            return -found if self.precision == "int8" else found


@pytest.fixture
def measured(tiny_backbone, monkeypatch):
    monkeypatch.setattr(trials, "ROUND_SECONDS", 0.01)
    machine, config = Machine(), ScoringConfig()
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    samples = Samples(builtin_pairs()[:16], None)
    found = try_ways(WAYS, machine, tokenizer, 64, samples, 512, lambda trial: why_not(trial, config) is None)
    return machine, found, config


def test_no_more_than_the_two_finalists_are_open_at_once(measured):
    machine, found, config = measured
    assert machine.most == trials.FINALISTS == 2
    assert [trial.way for trial in found] == WAYS
    assert [trial.way.precision for trial in found if trial.finalist] == ["bf16", "bf16"]
    assert fastest(found, config).way.precision == "bf16"


def test_each_way_is_compared_with_the_first_and_one_that_fails_says_why(measured):
    _, found, _ = measured
    parities = {trial.way.precision: trial.parity for trial in found}
    assert parities["fp32"] is None and parities["bf16"].rank_correlation == 1.0
    assert parities["int8"].rank_correlation == pytest.approx(-1.0)
    assert found[4].failure == "cannot run: no such instruction" and found[4].pairs_per_second == 0.0
    assert found[5].pairs_per_second > found[2].pairs_per_second  # faster, and yet no finalist


def test_the_first_way_must_run(tiny_backbone):
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    with pytest.raises(RuntimeError, match="no such instruction"):
        try_ways(WAYS[4:], Machine(), tokenizer, 64, Samples(builtin_pairs()[:4], None), 512)
