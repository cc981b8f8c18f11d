"""Negatives that trials mine for themselves: when, how often, and how long they stay."""

import os
import threading
import time
from pathlib import Path

from ranker.config import Experiment
from ranker.manifest import run_stage
from ranker.tuning import bench as places
from ranker.tuning.bench import Bench, slot
from ranker.tuning.mined import MINED, SPARE, drop_mined, mine_once
from ranker.tuning.recipe import absolute, mined_key, trial_config
from ranker.tuning.records import MODEL, note_start


def test_nothing_trains_while_a_trial_mines_and_none_mines_the_same_again(tmp_path, monkeypatch) -> None:
    at_work, seen, began = list[str](), list[tuple[list[str], int]](), threading.Event()

    def mine(config: Experiment) -> object:
        def make(work: Path) -> dict:
            seen.append((list(at_work), config.seed))
            return {}

        return run_stage("mine", config.folder("mine"), config.mine.identity(), {}, make)

    monkeypatch.setattr("ranker.training.mining.mine", mine)
    monkeypatch.setattr(places, "SECONDS_BETWEEN_TRIES", 0.01)
    bench = Bench(Experiment(), tmp_path, 2)

    def train(name: str) -> None:
        (tmp_path / name).mkdir()
        with slot(bench, tmp_path / name / "model"):
            at_work.append(name)
            if len(at_work) == 2:
                began.set()
            time.sleep(0.2)
            at_work.remove(name)

    threads = [threading.Thread(target=train, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    assert began.wait(20)
    overrides = {"mine.num_negatives": 2}
    config = trial_config(bench.base, {**overrides, "seed": 99}, tmp_path / "m", tmp_path / MINED)
    mine_once(bench, config)
    mine_once(bench, trial_config(bench.base, {**overrides, "train.epochs": 3.0}, tmp_path / "n", tmp_path / MINED))
    assert seen == [([], 13)], "once, after both trainings, with the seed of the experiment"
    with slot(bench, tmp_path / "a" / "model"), slot(bench, tmp_path / "b" / "model"):
        mine_once(bench, config)  # what is there waits for nobody
    for thread in threads:
        thread.join(timeout=20)


def test_only_what_is_needed_or_was_just_used_stays(tmp_path) -> None:
    bench, keys = Bench(absolute(Experiment()), tmp_path, 1), list[str]()
    for number in range(SPARE + 5):
        overrides = {"mine.num_negatives": number + 1}
        folder = note_start(tmp_path, f"id-{number}", str(number), overrides)
        keys.append(str(mined_key(overrides)))
        mined = tmp_path / MINED / keys[-1]
        mined.mkdir(parents=True)
        (mined / "groups.parquet").write_text("")
        os.utime(mined, (number, number))
        if number == 0:
            (folder / MODEL).mkdir()
    (tmp_path / MINED / ".gone.partial").mkdir()
    (tmp_path / MINED / f".{keys[1]}.partial").mkdir()
    live = [tmp_path / "trials" / "1"]
    assert sorted(drop_mined(bench, lambda: live)) == sorted(keys[2:5]), "0 has a model, 1 trains, the newest are spare"
    stay = {path.name for path in (tmp_path / MINED).iterdir() if path.is_dir()}
    assert stay == {keys[0], keys[1], f".{keys[1]}.partial", *keys[5:]}
    assert drop_mined(bench, lambda: live) == []
    assert drop_mined(Bench(bench.base, tmp_path / "other", 1), lambda: []) == []
