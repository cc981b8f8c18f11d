import json
from pathlib import Path

import numpy as np
import pytest

from ranker.training.batches import Batch
from ranker.training.engine import optimise
from ranker.training.progress import (
    Health,
    LogFollower,
    TrainingError,
    Window,
    append_log,
    describe,
    read_log,
    truncate_log,
)

STEP = {"step": 20, "total": 156, "loss": 1.25, "learning_rate": 4e-5, "grad_norm": 2.0, "pairs_per_second": 41.2,
        "tokens_per_second": 5100.4, "padding": 0.12, "spread": 1.0, "eta": 200.4}  # fmt: skip


def window(loss: float = 1.0, spread: float = 1.0) -> Window:
    return Window(loss=2 * loss, passes=2, spread=2 * spread)


def test_a_window_counts_what_went_through() -> None:
    seen = Window()
    mask = np.array([[True, True], [True, False]])
    batch = Batch({}, np.array([5, 7, 8]), np.zeros((2, 2)), mask, np.zeros((2, 2)))
    seen.add(0.5, np.array([[3.0, 1.0], [4.0, 99.0]]), batch, computed=25)
    assert seen.means() == {"loss": 0.5, "spread": 1.0, "padding": pytest.approx(0.2)}  # ranges 2 and 0; 20 of 25


def test_a_loss_that_is_no_number_stops_at_once() -> None:
    with pytest.raises(TrainingError, match=r"nan at step 7; lower train\.learning_rate"):
        Health().check(window(loss=float("nan")), 7)


def test_a_collapse_stops_but_a_small_start_does_not() -> None:
    slow = Health()
    for step in range(20):
        slow.check(window(spread=5e-5), step)
    health = Health()
    health.check(window(spread=2.0), 0)
    for step in range(4):
        health.check(window(spread=1e-3), step)
    health.check(window(spread=0.1), 5)  # it recovered: the count starts again
    for step in range(4):
        health.check(window(spread=0.0), step)
    with pytest.raises(TrainingError, match="every document gets the same score"):
        health.check(window(spread=0.0), 9)


def test_a_loss_that_stays_above_three_times_the_first_is_a_divergence() -> None:
    health = Health()
    for step, loss in enumerate((1.0, 3.5, 3.5, 2.9, 3.5, 3.5)):  # never three in a row
        health.check(window(loss=loss), step)
    with pytest.raises(TrainingError, match=r"the loss rises: 3\.5 at step 6, 1 at the start; lower train\.learning"):
        health.check(window(loss=3.5), 6)


def test_a_resumed_run_is_compared_with_its_first_window(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for step, loss in ((0, None), (10, 1.0), (20, 2.0), (30, 9.0)):
        append_log(log, {"step": step} | ({"message": "starting"} if loss is None else {"loss": loss, "spread": 2.0}))
    health = Health(read_log(log, 20))
    health.check(window(loss=3.5), 30)
    health.check(window(loss=3.5), 40)
    with pytest.raises(TrainingError, match=r"the loss rises: 3\.5 at step 50, 1 at the start"):
        health.check(window(loss=3.5), 50)


def test_a_loss_scale_that_cannot_fall_is_told_with_advice() -> None:
    class Engine:
        def __init__(self, text: str) -> None:
            self.text = text

        def step(self) -> None:
            raise Exception(self.text)

    with pytest.raises(TrainingError, match=r"fp16: gradients overflow.*train\.precision"):
        optimise(Engine("Current loss scale already at minimum - cannot decrease scale anymore. Exiting run."))
    with pytest.raises(Exception, match="something else"):
        optimise(Engine("something else"))


def test_a_resumed_run_forgets_the_lines_behind_its_checkpoint(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for step in (10, 20, 30):
        append_log(log, {"step": step})
    with log.open("a") as stream:
        stream.write('{"step": 4')  # the power failed here
    truncate_log(log, 20)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [10, 20]


def test_the_driver_tells_each_line_once(tmp_path: Path) -> None:
    log, told = tmp_path / "log.jsonl", []
    append_log(log, {"step": 0, "message": "of an earlier run"})
    follower = LogFollower(log, lambda record: told.append(describe(record)))
    append_log(log, STEP)
    follower.poll()
    follower.poll()
    line = "step 20/156: loss 1.2500, rate 4.00e-05, gradient 2.00, 41.2 pairs/s, 5100 tokens/s, padding 12%, 3:20 left"
    assert told == [line]
    truncate_log(log, 0)
    append_log(log, {"step": 0, "message": "resuming"})  # before the follower looked again
    follower.poll()
    assert told == [line, "resuming"]


def test_dev_measures_stand_beside_the_retrievers() -> None:
    record = {"step": 5, "total": 9, "dev": {"ndcg@10": 0.61}, "retriever": {"ndcg@10": 0.5}}
    assert describe(record) == "step 5/9: dev ndcg@10 0.6100 (retriever 0.5000)"
