import json
import math

import pytest

from ranker.tuning.trials import SweepError, Trial, best_trial, progress_line, trials_table

TRIALS = [
    Trial("a", {"train.lora.r": 4, "train.dropout": None}, {"ndcg@10": 0.5, "map": 0.4}, 10.0),
    Trial("b", {"train.lora.r": 8, "train.dropout": 0.1}, error="Traceback\nValueError: loss is not finite"),
    Trial("c", {"train.lora.r": 16, "train.dropout": 0.2}, {"ndcg@10": 0.7, "map": 0.3}, 20.0),
    Trial("d", {"train.lora.r": 32, "train.dropout": 0.2}, {"ndcg@10": math.nan}, 5.0),
]


def test_the_best_is_the_highest_and_the_first_of_equal_ones() -> None:
    assert best_trial(TRIALS, "ndcg@10").trial_id == "c"
    assert best_trial(TRIALS, "map").trial_id == "a"
    assert best_trial([TRIALS[0], Trial("z", {}, {"ndcg@10": 0.5})], "ndcg@10").trial_id == "a"


def test_a_sweep_without_a_result_tells_why() -> None:
    with pytest.raises(SweepError, match=r"none of 1 trials(.|\n)*ValueError: loss is not finite"):
        best_trial([TRIALS[1]], "ndcg@10")


def test_the_table_has_the_best_first_and_keeps_failures() -> None:
    rows = trials_table(TRIALS, "ndcg@10").to_pylist()
    assert [row["trial_id"] for row in rows][:2] == ["c", "a"]
    failed = next(row for row in rows if row["trial_id"] == "b")
    assert failed["status"] == "failed" and failed["error"].endswith("loss is not finite")
    assert failed["ndcg@10"] is None and failed["train.lora.r"] == 8
    assert rows[0]["seconds"] == 20.0 and rows[0]["error"] is None


def test_values_of_several_types_become_json() -> None:
    table = trials_table([Trial("a", {"x": [1]}), Trial("b", {"x": "all"})], "ndcg@10")
    assert [json.loads(value) for value in table["x"].to_pylist()] == [[1], "all"]


def test_progress_lines() -> None:
    assert progress_line(TRIALS[0], 2, 8, "ndcg@10", 0.7) == (
        "trial 2 of 8: ndcg@10 0.5000, best so far 0.7000; train.lora.r=4, train.dropout=None"
    )
    assert progress_line(TRIALS[1], 3, 8, "map", 0.7).startswith(
        "trial 3 of 8 failed: ValueError: loss is not finite; "
    )
