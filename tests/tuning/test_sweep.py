import json
import logging

import pyarrow.parquet as pq
import pytest
import yaml

from ranker.config import Experiment, load_experiment
from ranker.manifest import StageError
from ranker.tuning import SpaceError
from ranker.tuning.plan import ResourceError
from ranker.tuning.recipe import absolute
from ranker.tuning.records import Ended, Point, write_ended
from ranker.tuning.sweep import sweep


def test_a_sweep_needs_a_space_a_known_metric_and_dev_queries(experiment, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no such space file"):
        sweep(experiment.with_overrides({"tune.space": "gone.yaml"}))
    with pytest.raises(StageError, match="not measured in training"):
        sweep(experiment.with_overrides({"tune.metric": "recall@5"}))
    (tmp_path / "mined" / "dev_groups.parquet").unlink()
    with pytest.raises(StageError, match="mine again"):
        sweep(experiment)
    with pytest.raises(StageError, match="run the stage that writes it first"):
        sweep(experiment.with_overrides({"train.groups": None}))
    bad = tmp_path / "space.yaml"
    bad.write_text("train.batch_size: {sampler: choice, categories: [3], q: 1}")
    with pytest.raises(SpaceError, match="does not take"):
        sweep(experiment)


def test_filters_of_mining_need_a_stage_mine(experiment, tmp_path) -> None:
    (tmp_path / "space.yaml").write_text("mine.num_negatives: {sampler: choice, categories: [1, 2]}")
    with pytest.raises(SpaceError, match=r"mine\.\* varies, but train\.groups"):
        sweep(experiment)


def test_a_trial_sees_absolute_folders(monkeypatch, tmp_path, tiny_backbone) -> None:
    monkeypatch.chdir(tmp_path)
    config = absolute(Experiment().with_overrides({"output_dir": "runs/x", "train.model": tiny_backbone}))
    assert config.output_dir == str(tmp_path / "runs/x")
    assert config.folder("mine") == tmp_path / "runs/x/mine"


@pytest.fixture
def quick_fit(monkeypatch):
    """A stand-in for training that a Tune worker runs in its own process: a score from the learning rate."""
    import ranker.tuning.trainable as room

    def run_trial(bench, overrides, folder):
        assert bench.base.train.storage is None, "checkpoints of a trial that is stopped go with its folder"
        rate, loss = overrides["train.learning_rate"], overrides["train.loss"]
        (folder / "model").mkdir(parents=True, exist_ok=True)
        (folder / "model" / "config.json").write_text(str(rate))
        if loss == "bce":
            (folder / "error.txt").write_text("ValueError: this loss explodes")
            return None
        write_ended(folder / "outcome.json", Ended(rate, {"ndcg@10": rate}, (Point(1.0, rate),), 1.0, 0.5))
        return {"value": rate, "rounds": bench.rounds}

    monkeypatch.setattr(room, "run_trial", run_trial)


@pytest.mark.parametrize("search", ["random", "optuna", "grid"])
def test_failures_are_rows_the_best_is_kept_and_a_stopped_sweep_continues(
    experiment, quick_fit, ray_cluster, search, monkeypatch, caplog, tmp_path
) -> None:
    if search == "grid":
        lines = {"train.learning_rate": [1e-4, 1e-3, 1e-2], "train.loss": ["lce", "bce"]}
        plain = {path: {"sampler": "choice", "categories": values} for path, values in lines.items()}
        plain["constraints"] = ["not (train.loss == 'bce' and train.learning_rate == 0.001)"]
        (tmp_path / "space.yaml").write_text(yaml.safe_dump(plain))
    changes = {"tune.search": search, "tune.num_trials": 5, "tune.keep_best": 2, "train.storage": str(tmp_path / "far")}
    config = experiment.with_overrides(changes)
    with monkeypatch.context() as patch:
        patch.setattr("ranker.tuning.sweep._leave", None)  # stopped after the trials, before anything was published
        with pytest.raises(TypeError):
            sweep(config)
    caplog.set_level(logging.INFO, "ranker")
    done = sweep(config)
    assert "continuing the sweep that stopped" in caplog.text
    rows = pq.read_table(done.folder / "trials.parquet").to_pylist()
    assert len(rows) == 5 == done.outcome["num_trials"]
    failed = [row for row in rows if row["status"] == "failed"]
    assert done.outcome["num_failed"] == len(failed) == sum(row["train.loss"] == "bce" for row in rows)
    assert 0 < len(failed) < 4, "the seed must draw both losses"
    assert all(row["error"] == "ValueError: this loss explodes" for row in failed)
    best = max(row["train.learning_rate"] for row in rows if row["train.loss"] == "lce")
    assert (done.folder / "best" / "config.json").read_text() == str(best)
    again = load_experiment(done.folder / "best.yaml").train
    assert again.learning_rate == best and again.storage == str(tmp_path / "far")
    (second,) = (done.folder / "models").glob("*/config.json")
    assert float(second.read_text()) == sorted(r["train.learning_rate"] for r in rows if r["status"] == "finished")[-2]
    assert not any((done.folder / name).exists() for name in ("ray", "trials", "started", "slots"))
    page = (done.folder / "report.html").read_text()
    assert page.startswith("<!doctype html>") and "this loss explodes" in page
    assert sweep(config).skipped


def test_a_sweep_that_was_killed_while_it_tidied_up_is_over(tmp_path, monkeypatch) -> None:
    import ranker.tuning.sweep as room

    for name in ("ray", "started", "trials/a", "mined", "repeats/best-13", "best"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "report.html").write_text("<!doctype html>")
    best = {"num_trials": 3, "segments": [{}], "generations": 1, "best_share": 0.5}
    (tmp_path / "best.json").write_text(json.dumps(best))

    def killed(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            room._make(None, None, tmp_path)
    assert room._make(None, None, tmp_path) == {"num_trials": 3}, "nothing is searched again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "best.json", "report.html"]


@pytest.fixture
def quick_steps(monkeypatch):
    """A stand-in that reports four times, each a little better, and goes on where it was when it was paused."""
    import ranker.tuning.trainable as room

    def run_trial(bench, overrides, folder):
        from ray import tune

        rate, place = overrides["train.learning_rate"], folder / "step"
        for step in range(int(place.read_text()) if place.exists() else 1, 4):
            place.write_text(str(step + 1))
            tune.report({"value": rate * step, "rounds": float(step)})
        (folder / "model").mkdir(parents=True, exist_ok=True)
        (folder / "model" / "config.json").write_text(str(rate))
        write_ended(folder / "outcome.json", Ended(rate * 4, {"ndcg@10": rate * 4}, (Point(1.0, rate * 4),)))
        return {"value": rate * 4, "rounds": bench.rounds}

    monkeypatch.setattr(room, "run_trial", run_trial)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["asha", "hyperband"])
def test_schedulers_stop_the_worse_and_never_hang(experiment, quick_steps, ray_cluster, scheduler) -> None:
    changes = {"tune.scheduler": scheduler, "tune.num_trials": 8, "tune.search": "random", "train.evaluate_every": 1}
    done = sweep(experiment.with_overrides(changes))
    rows = pq.read_table(done.folder / "trials.parquet").to_pylist()
    assert len(rows) == 8 and done.outcome["num_failed"] == 0
    finished = [row["train.learning_rate"] for row in rows if row["status"] == "finished"]
    stopped = [row["train.learning_rate"] for row in rows if row["status"] == "stopped"]
    assert stopped and finished
    assert done.outcome["overrides"]["train.learning_rate"] == max(finished)


@pytest.mark.slow
def test_a_population_ends_and_its_best_has_a_recipe_of_all_parts(experiment, monkeypatch, ray_cluster) -> None:
    import ranker.tuning.trainable as room

    def members(bench, overrides, folder, state, report):
        from ranker.tuning.population import State, _finish

        for generation in range(state.generation, bench.base.tune.generations):
            place = folder / f"{generation}-part" / "model"
            place.mkdir(parents=True, exist_ok=True)
            (place / "config.json").write_text("{}")
            value = (state.points[-1].value if state.points else 0.0) + overrides["train.learning_rate"]
            points = (*state.points, Point((len(state.segments) + 1) / 3, value))
            state = State(generation + 1, str(place), (*state.segments, dict(overrides)), points)
            metrics = {"value": value, "generation": generation + 1}
            if generation + 1 == bench.base.tune.generations:
                _finish(bench, overrides, folder, state)
            report(metrics, state)

    monkeypatch.setattr(room, "run_generations", members)
    done = sweep(experiment.with_overrides({"tune.search": "pbt", "tune.num_trials": 4, "tune.generations": 3}))
    rows = pq.read_table(done.folder / "trials.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["finished"] * 4
    best = json.loads((done.folder / "best.json").read_text())
    assert best["generations"] == 3 and len(best["segments"]) == 3
    total = sum(segment["train.learning_rate"] for segment in best["segments"])
    assert done.outcome["dev"]["ndcg@10"] == pytest.approx(total), "what it was handed counts in its value"
    config = load_experiment(done.folder / "best.yaml")
    assert config.train.model == str(done.folder / "best_parent") and config.train.epochs == pytest.approx(1 / 3)


def test_a_sweep_of_which_nothing_fits_is_refused_with_the_arithmetic(experiment, ray_cluster) -> None:
    with pytest.raises(ResourceError, match="8 workers x 1 CPU"):
        sweep(experiment.with_overrides({"train.num_workers": 8, "train.batch_size": 8}))
