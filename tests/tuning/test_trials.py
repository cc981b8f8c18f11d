import json

import pytest

from ranker.tuning.records import Point
from ranker.tuning.trials import SweepError, Trial, best_trial, pareto_front, progress_line, trials_table

TRIALS = [
    Trial("a", {"train.lora.r": 4, "train.dropout": None}, 0.5, number=1, measures={"map": 0.4}, seconds=10.0),
    Trial("b", {"train.lora.r": 8, "train.dropout": 0.1}, status="failed", number=2,
          error="Traceback\nValueError: loss is not finite"),
    Trial("c", {"train.lora.r": 16, "train.dropout": 0.2}, 0.7, number=3, measures={"map": 0.3}, seconds=20.0,
          points=(Point(0.5, 0.6), Point(1.0, 0.7))),
    Trial("d", {"train.lora.r": 32, "train.dropout": 0.2}, 0.9, "stopped", number=4, seconds=5.0),
]  # fmt: skip


def test_the_best_has_a_model_and_the_first_of_equal_ones_wins() -> None:
    assert best_trial(TRIALS, "ndcg@10").trial_id == "c", "a stopped trial has no model, whatever it measured"
    assert best_trial([TRIALS[0], Trial("z", {}, 0.5, number=2)], "ndcg@10").trial_id == "a"


def test_a_sweep_without_a_result_tells_why() -> None:
    with pytest.raises(SweepError, match=r"none of 2 trials(.|\n)*ValueError: loss is not finite(.|\n)*stopped"):
        best_trial([TRIALS[1], TRIALS[3]], "ndcg@10")


def test_the_table_has_the_best_first_and_keeps_failures() -> None:
    rows = trials_table(TRIALS, "ndcg@10").to_pylist()
    assert [row["trial_id"] for row in rows] == ["c", "a", "b", "d"]
    assert rows[2]["status"] == "failed" and rows[2]["error"].endswith("loss is not finite")
    assert rows[2]["ndcg@10"] is None and rows[2]["train.lora.r"] == 8
    assert rows[0]["seconds"] == 20.0 and rows[0]["error"] is None
    assert (rows[0]["progress"], rows[0]["intermediate"]) == ([0.5, 1.0], [0.6, 0.7])


def test_values_of_several_types_become_json() -> None:
    table = trials_table([Trial("a", {"x": [1]}), Trial("b", {"x": "all"})], "ndcg@10")
    assert [json.loads(value) for value in table["x"].to_pylist()] == [[1], "all"]


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    def timed(name: str, value: float, ms: float | None) -> Trial:
        return Trial(name, {}, value, latency_ms=ms)

    trials = [timed("slow and bad", 0.5, 30), timed("good", 0.9, 20), timed("fast", 0.6, 5), timed("middle", 0.8, 10),
              timed("as fast, worse", 0.4, 5), timed("no time", 0.99, None)]  # fmt: skip
    assert [trial.trial_id for trial in pareto_front(trials)] == ["fast", "middle", "good"]
    assert best_trial(trials[:5], "ndcg@10", 12).trial_id == "middle"
    assert best_trial(trials[:5], "ndcg@10", 1).trial_id == "fast", "where none is so fast, the fastest"


def test_progress_lines() -> None:
    assert progress_line(TRIALS[0], 2, 8, "ndcg@10", 0.7) == (
        "trial 2 of 8: ndcg@10 0.5000, best so far 0.7000; train.lora.r=4, train.dropout=null"
    )
    assert progress_line(TRIALS[1], 3, 8, "map", 0.7).startswith(
        "trial 3 of 8 failed: ValueError: loss is not finite; "
    )
    assert progress_line(TRIALS[3], 4, 8, "map", 0.7).startswith("trial 4 of 8 (stopped): map 0.9000")
