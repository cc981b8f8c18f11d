import json
import math
import os

import pytest

from ranker.tuning import records
from ranker.tuning.records import Ended, Point, ended_of, measured, note_start, note_stop, read_ended, tidy, write_ended


def write_log(file, values) -> None:
    """A log of measurements at 2, 4, ... of 8 steps, with lines of other kinds between them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"step": 0, "message": "starting"})]
    for step, value in enumerate(values, 1):
        lines.append(json.dumps({"step": 2 * step, "total": 8, "loss": 1.0, "eta": 0}))
        lines.append(json.dumps({"step": 2 * step, "total": 8, "dev": {"ndcg@10": value, "map": value / 2}}))
    file.write_text("\n".join([*lines, '{"step": 8, "tot']))


def test_what_a_log_says(tmp_path) -> None:
    write_log(tmp_path / "log", [0.5, 0.8, 0.6])
    found = ended_of(tmp_path / "log", "ndcg@10", chooses=True)
    assert (found.value, found.best_share, found.measures) == (0.8, 0.5, {"ndcg@10": 0.8, "map": 0.4})
    assert found.points == (Point(0.25, 0.5), Point(0.5, 0.8), Point(0.75, 0.6))
    assert ended_of(tmp_path / "log", "ndcg@10", chooses=False).value == 0.6
    assert math.isnan(ended_of(tmp_path / "none", "ndcg@10", chooses=True).value)


def test_dev_sets_of_a_mix_count_alike(tmp_path) -> None:
    record = {"step": 8, "total": 8, "dev": {"ndcg@10": 0.4, "mix1/ndcg@10": 0.8, "map": 0.1}}
    (tmp_path / "log").write_text(json.dumps(record))
    assert [point.value for point, _ in measured(tmp_path / "log", "ndcg@10")] == [0.6000000000000001]


def test_an_outcome_is_read_back(tmp_path) -> None:
    ended = Ended(0.5, {"map": 0.4}, (Point(0.5, 0.4),), 10.0, 7.0, 0.5, 3.2)
    write_ended(tmp_path / "outcome.json", ended)
    assert read_ended(tmp_path / "outcome.json") == ended
    assert read_ended(tmp_path / "none.json") is None


def test_only_the_best_weights_stay(tmp_path) -> None:
    for name, value in (("a", 0.5), ("b", 0.9), ("c", 0.7), ("failed", None), ("stopped", None), ("running", None)):
        folder = note_start(tmp_path, f"id-{name}", name, {"train.epochs": 1})
        (folder / records.MODEL).mkdir()
        (folder / records.PARTIAL).mkdir()
        if value is not None:
            write_ended(folder / records.OUTCOME, Ended(value))
    trials = tmp_path / records.TRIALS
    (trials / "failed" / records.FAILED).write_text("ValueError: no")
    write_log(trials / "stopped" / records.PARTIAL / records.LOG, [0.3])
    note_stop(trials / "stopped", "ndcg@10", 4.0)
    tidy(tmp_path, 2, ["running"])
    models = {folder.parent.name for folder in trials.glob(f"*/{records.MODEL}")}
    assert models == {"b", "c", "running"}
    assert {folder.parent.name for folder in trials.glob(f"*/{records.PARTIAL}")} == {"running"}
    stopped = read_ended(trials / "stopped" / records.STOPPED)
    assert (stopped.value, stopped.seconds, stopped.points) == (0.3, 4.0, (Point(0.25, 0.3),))
    assert records.folder_of(tmp_path, "id-b") == trials / "b" and records.folder_of(tmp_path, "other") is None


def test_a_trial_that_lost_its_process_keeps_its_work(tmp_path) -> None:
    folder = note_start(tmp_path, "one", "a", {})
    (folder / records.PARTIAL).mkdir()
    tidy(tmp_path, 1)
    assert (folder / records.PARTIAL).exists()


@pytest.mark.parametrize(
    ("most_ms", "expected"),
    [
        (None, ["z", "b", "a", "slow"]),  # of equal values the first that began, whatever its folder is called
        (10.0, ["z", "a", "slow", "b"]),  # those that take too long stand behind, the fastest of them first
        (1.0, ["a", "z", "slow", "b"]),
    ],
)
def test_the_weights_that_stay_are_those_of_the_trials_that_win(tmp_path, most_ms, expected) -> None:
    from ranker.config import Experiment
    from ranker.tuning.bench import Bench
    from ranker.tuning.runner import read_trials
    from ranker.tuning.trials import best_trial

    told = {"z": (0.9, 8.0), "b": (0.9, 90.0), "a": (0.8, 5.0), "slow": (0.5, 20.0)}
    for second, (name, (value, ms)) in enumerate(told.items()):
        folder = note_start(tmp_path, f"id-{name}", name, {"train.epochs": 1})
        os.utime(tmp_path / records.STARTED / f"id-{name}", (second, second))
        (folder / records.MODEL).mkdir()
        write_ended(folder / records.OUTCOME, Ended(value, latency_ms=ms))
    (tmp_path / records.STARTED / ".id-x.17.tmp").write_text("")  # whose process was killed while it wrote
    for keep in (4, 3, 2, 1):
        tidy(tmp_path, keep, most_ms=most_ms)
        stay = {folder.parent.name for folder in (tmp_path / records.TRIALS).glob(f"*/{records.MODEL}")}
        assert stay == set(expected[:keep])
    trials = read_trials(Bench(Experiment(), tmp_path, 1), {})
    assert [trial.folder for trial in trials] == list(told)
    assert best_trial(trials, "ndcg@10", most_ms).folder == expected[0]
