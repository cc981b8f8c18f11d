"""A trial's own process: its place among the others, what it leaves when it fails, and what it does not do twice."""

import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from ranker.config import Experiment
from ranker.training.job import RESERVED
from ranker.tuning import bench as places
from ranker.tuning import reservations as leftovers
from ranker.tuning import trial
from ranker.tuning.bench import Bench, slot
from ranker.tuning.latency import time_queries
from ranker.tuning.population import State, run_generations
from ranker.tuning.recipe import Recipe, key_of, part_config, trial_config
from ranker.tuning.records import Ended, Point, note_start, read_ended, write_ended
from ranker.tuning.repeats import with_seed
from ranker.tuning.reservations import free_reservation, reservations
from ranker.tuning.trial import run_trial


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(Experiment(), tmp_path, 2)


def test_no_more_trials_train_than_there_are_places(bench, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(places, "SECONDS_BETWEEN_TRIES", 0.01)
    at_once, most, guard = 0, 0, threading.Lock()

    def train(name: str) -> None:
        nonlocal at_once, most
        with slot(bench, tmp_path / name / "model"):
            with guard:
                at_once += 1
                most = max(most, at_once)
            time.sleep(0.05)
            with guard:
                at_once -= 1

    for name in "abcde":
        (tmp_path / name).mkdir()
    threads = [threading.Thread(target=train, args=(name,)) for name in "abcde"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert (most, at_once) == (2, 0)


def test_a_place_is_free_again_after_a_failure(bench, tmp_path) -> None:
    for _ in range(4):
        with pytest.raises(ValueError, match="no"), slot(bench, tmp_path / "model"):
            raise ValueError("no")


def test_a_trial_waits_for_its_own_process_of_before(bench, tmp_path) -> None:
    held = threading.Event()

    def hold() -> None:
        with FileLock(tmp_path / ".model.lock"):
            held.set()
            time.sleep(0.3)

    threading.Thread(target=hold).start()
    assert held.wait(10)
    start = time.monotonic()
    with slot(bench, tmp_path / "model"):
        assert time.monotonic() - start > 0.2


def test_whoever_comes_next_gives_back_what_a_killed_trial_had_reserved(tmp_path, ray_cluster) -> None:
    from ray.util import placement_group

    bench = Bench(Experiment(), tmp_path, 1)
    killed, after = tmp_path / "a" / ".model.partial", tmp_path / "b" / "model"
    for folder in (killed, after.parent):
        folder.mkdir(parents=True)
    reserved = placement_group([{"CPU": 1.0}])
    assert reserved.wait(30)
    with slot(bench, killed.with_name("model")):
        (killed / RESERVED).write_text(reserved.id.hex())
    assert reserved.id.hex() in reservations(), "its process may still be there"
    with slot(bench, after):
        deadline = time.monotonic() + 20
        while reserved.id.hex() in reservations() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert reserved.id.hex() not in reservations() and not (killed / RESERVED).exists()
    (killed / RESERVED).write_text("00" * 18)  # of a cluster that is gone
    assert free_reservation(killed) is False and not (killed / RESERVED).exists()


def test_what_a_killed_trial_reserved_without_leaving_word_is_given_back(tmp_path, ray_cluster, monkeypatch) -> None:
    import ray
    from ray.util import placement_group

    class Controller:
        def reserve(self) -> str:
            self.group = placement_group([{"CPU": 1.0}])
            return self.group.id.hex()

    monkeypatch.setattr(leftovers, "SECONDS_BETWEEN_LOOKS", 0.05)
    maker = ray.remote(num_cpus=0)(Controller).remote()
    reserved = ray.get(maker.reserve.remote())
    (tmp_path / "b").mkdir()
    with slot(Bench(Experiment(), tmp_path, 1), tmp_path / "b" / "model"):
        time.sleep(0.3)
        assert reserved in reservations(), "its maker lives, and may be about to start its workers"
        ray.kill(maker)
        deadline = time.monotonic() + 20
        while reserved in reservations() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert reserved not in reservations()


def test_a_trial_that_fails_leaves_its_reason_and_one_that_ended_is_not_done_again(bench, monkeypatch) -> None:
    def explode(*given: object) -> None:
        raise ValueError("the loss is nan")

    monkeypatch.setattr(trial, "_train", explode)
    folder = note_start(bench.work, "t1", key_of({"train.epochs": 1}), {"train.epochs": 1})
    assert run_trial(bench, {"train.epochs": 1}, folder) is None
    assert (folder / "error.txt").read_text() == "ValueError: the loss is nan"
    write_ended(folder / "outcome.json", Ended(0.7, seconds=3.0, latency_ms=4.5))
    assert run_trial(bench, {}, folder) == {"value": 0.7, "rounds": 4.0, "seconds": 3.0, "latency_ms": 4.5}


def test_a_lost_process_is_not_a_failure_of_the_trial(bench, monkeypatch) -> None:
    from ray.exceptions import RayActorError

    def lose(*given: object) -> None:
        raise RayActorError()

    monkeypatch.setattr(trial, "_train", lose)
    folder = note_start(bench.work, "t1", "a", {})
    with pytest.raises(RayActorError):
        run_trial(bench, {}, folder)
    assert not (folder / "error.txt").exists(), "Tune starts it again"


def test_of_equal_trials_at_once_the_second_takes_what_the_first_found(bench, monkeypatch) -> None:
    trained, told = list[str](), list[object]()

    def train(bench, overrides, folder) -> Ended:
        trained.append(folder.name)
        time.sleep(0.2)
        if overrides["train.loss"] == "bce":
            raise ValueError("the loss is nan")
        return Ended(0.7, seconds=30.0)

    monkeypatch.setattr(trial, "_train", train)
    for loss in ("lce", "bce"):
        overrides, folder = {"train.loss": loss}, note_start(bench.work, f"t-{loss}", loss, {"train.loss": loss})
        run = lambda overrides=overrides, folder=folder: told.append(run_trial(bench, overrides, folder))  # noqa: E731
        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
    report = {"value": 0.7, "rounds": 4.0, "seconds": 30.0}
    assert trained == ["lce", "bce"] and told == [report, report, None, None]
    assert read_ended(bench.work / "trials" / "lce" / "outcome.json").seconds == 30.0


def test_a_training_without_room_waits_and_is_no_failure(bench, tmp_path, monkeypatch, caplog) -> None:
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    from ranker.training.progress import TrainingError
    from ranker.tuning.runner import Watch

    tries, folder = list[bool](), note_start(tmp_path, "t1", "a", {})

    def train() -> str:
        with FileLock(tmp_path / "slots" / "1").acquire(timeout=0):  # the other place is free
            tries.append((folder / "waiting.txt").is_file())
        if len(tries) < 3:
            raise TrainingError("training failed") from ControllerError(WorkerGroupStartupTimeoutError(2))
        return "trained"

    monkeypatch.setattr(places, "SECONDS_WITHOUT_ROOM", 0.01)
    assert places.in_slot(bench, folder / "model", train) == "trained"
    assert tries == [False, True, True]
    watch = Watch(bench, 3)
    for _ in range(2):
        watch.on_step_end(1, [])
    assert caplog.text.count("trial in a waits for cores") == 1, "the driver says it once"

    def explode() -> None:
        raise TrainingError("training failed") from WorkerGroupError("a worker", {0: ValueError("nan")})

    with pytest.raises(TrainingError):
        places.in_slot(bench, folder / "model", explode)


def test_a_stopped_trial_gives_its_cores_back_before_its_folder_goes(bench, tmp_path, monkeypatch) -> None:
    from types import SimpleNamespace

    from ranker.tuning import runner
    from ranker.tuning.records import PARTIAL, STOPPED

    folder, freed = note_start(tmp_path, "t1", "a", {}), []
    work = folder / PARTIAL
    work.mkdir()
    (work / RESERVED).write_text("c0ffee")
    monkeypatch.setattr(runner, "free_reservation", lambda place: freed.append((place / RESERVED).read_text()))
    stopped = SimpleNamespace(trial_id="t1", last_result={"time_total_s": 3.0}, is_finished=lambda: True)
    runner.Watch(bench, 1).on_trial_complete(1, [stopped], stopped)
    assert freed == ["c0ffee"] and not work.exists() and (folder / STOPPED).is_file()


def test_trials_with_the_same_filters_share_what_was_mined(tmp_path) -> None:
    def folder(**overrides: object) -> object:
        changes = {path.replace("_", ".", 1): value for path, value in overrides.items()}
        return trial_config(Experiment(), changes, tmp_path / "m", tmp_path / "mined").folder("mine")

    assert folder(mine_range_min=2) == folder(mine_range_min=2, train_epochs=3.0)
    assert folder(mine_range_min=2) != folder(mine_range_min=3)
    assert folder(train_epochs=3.0) == Experiment().folder("mine")


def test_a_part_has_its_share_of_the_steps_and_another_order() -> None:
    config = Experiment().with_overrides({"train.epochs": 2.0, "train.max_steps": 21})
    part = part_config(config, 2, 4, None)
    assert (part.train.epochs, part.train.max_steps, part.seed) == (0.5, 5, 15)
    recipe = with_seed(Recipe(({"train.epochs": 1}, {"train.epochs": 2}), 2), 99)
    assert [segment["seed"] for segment in recipe.segments] == [99, 99]
    assert Recipe.of(recipe.plain()) == recipe


def test_a_member_goes_on_from_another_and_keeps_what_it_was_made_from(tmp_path, monkeypatch) -> None:
    from ranker.tuning import population

    base = Experiment().with_overrides({"tune.search": "pbt", "tune.generations": 3})
    bench, parents, told = Bench(base, tmp_path, 1), [], []

    def part(bench, overrides, place, state):
        parents.append(population._keep_parent(state, place))
        (place / "model").mkdir()
        (place / "model" / "config.json").write_text(str(overrides))
        if overrides["rate"] == 13:
            raise ValueError("unlucky")
        points = (*state.points, Point((len(state.segments) + 1) / 3, overrides["rate"] / 10))
        return State(state.generation + 1, str(place / "model"), (*state.segments, dict(overrides)), points)

    monkeypatch.setattr(population, "_train_part", part)
    one, other = (note_start(tmp_path, name, name, {"rate": 1}) for name in ("one", "other"))
    report = lambda metrics, state: told.append((metrics["value"], state))  # noqa: E731
    run_generations(bench, {"rate": 5}, one, State(), report)
    handed = State.of(told[1][1].plain())  # as JSON gives it back
    run_generations(bench, {"rate": 7}, other, handed, report)
    assert [value for value, _ in told] == [0.5, 0.5, 0.5, 0.7]
    recipe = population.recipe_of(other)
    assert [segment["rate"] for segment in recipe.segments] == [5, 5, 7] and recipe.generations == 3
    assert (other / "parent" / "config.json").read_text() == "{'rate': 5}", "what its last part began from"
    assert read_ended(other / "outcome.json").value == 0.7
    assert len([path for path in one.glob("*-*") if path.is_dir()]) == 2, "old parts go"
    told.clear()
    run_generations(bench, {"rate": 13}, note_start(tmp_path, "bad", "bad", {}), State(), report)
    assert [value for value, _ in told] == [-1.0, -1.0, -1.0], "the worst, so that it continues from a better one"
    assert "unlucky" in (tmp_path / "trials" / "bad" / "error.txt").read_text()


def test_a_member_whose_parts_fail_one_after_another_keeps_its_weights(tmp_path, monkeypatch) -> None:
    from ranker.tuning import population

    base, told = Experiment().with_overrides({"tune.search": "pbt", "tune.generations": 4}), []

    def part(bench, overrides, place, state):
        (place / "model").mkdir()
        if state.generation > 0:
            raise ValueError("the loss is nan")
        (place / "model" / "config.json").write_text("{}")
        return State(1, str(place / "model"), (dict(overrides),), (Point(0.25, 0.6),))

    monkeypatch.setattr(population, "_train_part", part)
    folder = note_start(tmp_path, "one", "one", {"rate": 1})
    report = lambda metrics, state: told.append((metrics["value"], (Path(state.model) / "config.json").is_file()))  # noqa: E731
    run_generations(Bench(base, tmp_path, 1), {"rate": 1}, folder, State(), report)
    assert told == [(0.6, True), (-1.0, True), (-1.0, True), (-1.0, True)]
    assert (folder / "model" / "config.json").is_file() and read_ended(folder / "outcome.json").value == 0.6


def test_time_of_a_query_is_the_fastest_of_three_after_a_first_call() -> None:
    pauses = iter([0.05, 0.03, 0.01, 0.03])
    told = time_queries(lambda query, documents: time.sleep(next(pauses)), [("q", ["d"])])
    assert 10 <= told < 25
