"""Records of the log become curves, also when a run stops and goes on, and a tracker that fails stops nothing."""

import json
import logging
import struct
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ranker.registry import Registry
from ranker.training import tracking
from ranker.training.trackers import dotted, legal
from ranker.training.tracking import TrackerError, check_trackers, numbers, trackers

SETTINGS = {"loss": "lce", "lora": {"r": 8, "target_modules": None}, "loss_options": {}}


def begins(step: int) -> dict[str, Any]:
    return {"step": step, "message": f"goes on after step {step}", "time": 1000.0 + step}


def trained(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "total": 40, "loss": loss, "learning_rate": 1e-4, "eta": 3.0, "time": 1000.0 + step}


def measured(step: int, value: float) -> dict[str, Any]:
    return {"step": step, "total": 40, "dev": {"ndcg@10": value}, "retriever": {"ndcg@10": 0.5}, "time": 1000.0 + step}


def send_all(folder: Path, name: str, *records: dict[str, Any]) -> None:
    with trackers([name], folder, "animals", SETTINGS) as send:
        for record in records:
            send(record)


# Steps 10 and 20 with a checkpoint after 10; the run is killed, and does step 20 again.
FIRST = (begins(0), trained(10, 4.0), measured(10, 0.6), trained(20, 3.0))
SECOND = (begins(10), trained(20, 3.0), trained(30, 2.0), measured(30, 0.7))
CURVES = {
    "loss": [(10, 4.0), (20, 3.0), (30, 2.0)],
    "learning_rate": [(10, 1e-4), (20, 1e-4), (30, 1e-4)],
    "dev/ndcg@10": [(10, 0.6), (30, 0.7)],
    "retriever/ndcg@10": [(10, 0.5), (30, 0.5)],
}


class Notes:
    """A tracker that writes down what it is told, fails at step 20 if it should, or waits for an event."""

    package, remedy = "json", ""

    def __init__(self, fails: bool = False, waits: threading.Event | None = None) -> None:
        self.seen: list[object] = []
        self.fails, self.waits = fails, waits

    def __call__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> "Notes":
        self.seen.append((folder.name, name, dict(settings)))
        return self

    def say(self, step: int, message: str) -> None:
        self.seen.append(message)

    def plot(self, step: int, numbers: Mapping[str, float], when: float) -> None:
        if self.waits is not None:
            self.waits.wait(60)
        if self.fails and step == 20:
            raise ConnectionError("no answer\nfrom the server")
        self.seen.append((step, when, dict(numbers)))

    def close(self, failed: bool) -> None:
        self.seen.append(failed)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry[Any]:
    """An empty one in the place of TRACKERS."""
    empty: Registry[Any] = Registry("tracker")
    monkeypatch.setattr(tracking, "TRACKERS", empty)
    return empty


@pytest.fixture(autouse=True)
def nothing_is_left_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trackers write into the folder that they are given, and nowhere else."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tracking, "SECONDS_TO_FINISH", 240.0)  # a new store of MLflow takes long on a busy machine
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    yield
    assert list(here.iterdir()) == []


def test_the_numbers_of_a_record_are_its_curves() -> None:
    assert numbers(trained(10, 4.0)) == {"loss": 4.0, "learning_rate": 1e-4}  # what is left of the time is no curve
    assert numbers(measured(10, 0.6)) == {"dev/ndcg@10": 0.6, "retriever/ndcg@10": 0.5}
    assert numbers(begins(0)) == {}


def test_a_tracker_gets_what_the_log_says_and_how_it_ended(registry: Registry[Any], tmp_path: Path) -> None:
    notes = registry.register("notes")(Notes())
    send_all(tmp_path / "run", "notes", *FIRST[:2])
    assert (tmp_path / "run").is_dir()
    assert notes.seen == [
        ("run", "animals", SETTINGS),
        "goes on after step 0",
        (10, 1010.0, {"loss": 4.0, "learning_rate": 1e-4}),
        False,
    ]
    with pytest.raises(KeyboardInterrupt), trackers(["notes"], tmp_path, "animals", SETTINGS):
        raise KeyboardInterrupt
    assert notes.seen[-1] is True  # failed


def test_without_trackers_nothing_is_made(tmp_path: Path) -> None:
    with trackers([], tmp_path / "run", "animals", SETTINGS) as send:
        send(trained(10, 4.0))
    assert not (tmp_path / "run").exists()


def test_all_that_is_wrong_with_the_names_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda package: None)
    with pytest.raises(TrackerError) as caught, trackers(["mlflow", "wanb"], tmp_path, "animals", SETTINGS):
        pytest.fail("the training started")
    assert str(caught.value) == (
        "tracker 'mlflow' needs the package mlflow, which is not installed: pip install 'ranker[mlflow]'; "
        "unknown tracker 'wanb'; did you mean 'wandb'? known: mlflow, tensorboard, wandb"
    )


def test_a_folder_with_the_name_of_a_package_is_not_the_package(
    registry: Registry[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "curveware" / "run-1").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    notes = registry.register("notes")(Notes())
    check_trackers(["notes"])
    notes.package = "curveware"
    with pytest.raises(TrackerError, match="needs the package curveware"):
        check_trackers(["notes"])


def test_a_tracker_that_fails_is_told_once_and_stops_nothing(
    registry: Registry[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, broken = registry.register("whole")(Notes()), registry.register("broken")(Notes(fails=True))
    registry.register("closed")(lambda folder, name, settings: 1 / 0)
    registry["closed"].package = "json"  # type: ignore[attr-defined]
    with trackers(["broken", "closed", "whole"], tmp_path, "animals", SETTINGS) as send:
        for step in (10, 20, 30, 40):
            send(trained(step, 1.0))
    assert [entry[0] for entry in whole.seen[1:-1]] == [10, 20, 30, 40]
    assert [entry[0] for entry in broken.seen[1:]] == [10]
    assert sorted(record.message for record in caplog.records if record.levelno == logging.WARNING) == [
        "tracking with broken ended, the training goes on: ConnectionError: no answer",
        "tracking with closed ended, the training goes on: ZeroDivisionError: division by zero",
    ]


def test_a_tracker_that_hangs_is_not_waited_for_for_ever(
    registry: Registry[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "SECONDS_TO_FINISH", 0.2)
    answer = threading.Event()
    notes = registry.register("notes")(Notes(waits=answer))
    send_all(tmp_path, "notes", trained(10, 4.0))
    answer.set()
    assert notes.seen[1:] == []
    assert "notes has not taken everything in time" in caplog.text


def events(folder: Path) -> Iterator[Any]:
    """What TensorBoard reads: length, its checksum, event, its checksum; file after file."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.out.tfevents.*")):
        rest = file.read_bytes()
        while rest:
            (length,) = struct.unpack("<Q", rest[:8])
            yield Event.FromString(rest[12 : 12 + length])
            rest = rest[16 + length :]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Points by curve as TensorBoard shows them: a new start hides what stood at its step and later."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for event in events(folder):
        if event.HasField("session_log"):
            found = defaultdict(
                list, {name: [p for p in points if p[0] < event.step] for name, points in found.items()}
            )
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found[value.tag].append((event.step, pytest.approx(value.simple_value)))
    return found


def texts(folder: Path) -> list[tuple[int, str, str]]:
    return [
        (event.step, value.tag.partition("/")[0], value.tensor.string_val[0].decode())
        for event in events(folder)
        for value in event.summary.value
        if value.HasField("tensor")
    ]


def test_tensorboard_shows_curves_messages_and_settings(tmp_path: Path) -> None:
    send_all(tmp_path, "tensorboard", *FIRST)
    assert curves(tmp_path)["loss"] == [(10, 4.0), (20, 3.0)]
    assert curves(tmp_path)["dev/ndcg@10"] == [(10, 0.6)]
    assert texts(tmp_path) == [
        (0, "settings", "    loss: lce\n    lora.r: 8\n    lora.target_modules: None\n    loss_options: {}"),
        (0, "log", "goes on after step 0"),
    ]
    times = {event.step: event.wall_time for event in events(tmp_path) if event.step >= 10}
    assert times == {10: 1010.0, 20: 1020.0}  # of the log, not of the reading


def test_tensorboard_shows_a_step_once_though_it_ran_twice(tmp_path: Path) -> None:
    send_all(tmp_path / "killed", "tensorboard", *FIRST)
    send_all(tmp_path / "killed", "tensorboard", *SECOND)
    assert curves(tmp_path / "killed") == CURVES
    send_all(tmp_path / "worker_lost", "tensorboard", *FIRST, *SECOND)  # the driver lived on
    assert curves(tmp_path / "worker_lost") == CURVES
    assert len(texts(tmp_path / "worker_lost")) == 3  # settings once


def test_names_that_mlflow_takes() -> None:
    assert legal("dev/ndcg@10") == "dev/ndcg_at_10"
    assert legal("dev/mrr(rel=2)@10") == "dev/mrr_rel_2__at_10"
    assert dict(dotted(SETTINGS)) == {
        "loss": "lce",
        "lora.r": "8",
        "lora.target_modules": "None",
        "loss_options": "{}",
    }


@pytest.fixture
def mlflow_client(tmp_path: Path) -> Any:
    """Reads the local store of ``tmp_path / 'run'``."""
    mlflow = pytest.importorskip("mlflow")
    return lambda: mlflow.MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")


def test_mlflow_continues_its_run_and_gets_each_step_once(tmp_path: Path, mlflow_client: Any) -> None:
    send_all(tmp_path / "run", "mlflow", *FIRST)
    run_id = json.loads((tmp_path / "run" / "mlflow.json").read_text())["run"]
    with pytest.raises(ValueError, match="collapsed"), trackers(["mlflow"], tmp_path / "run", "again", {}) as send:
        for record in SECOND:
            send(record)
        raise ValueError("the model has collapsed")
    client = mlflow_client()
    experiment = client.get_experiment_by_name("ranker")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (run_id, "animals", "FAILED")
    assert run.data.params == dict(dotted(SETTINGS))
    for name, points in CURVES.items():
        history = client.get_metric_history(run_id, legal(name))
        assert [(point.step, point.value) for point in history] == points
    assert client.get_metric_history(run_id, "loss")[0].timestamp == 1_010_000


def test_mlflow_starts_anew_where_the_server_does_not_know_the_run(tmp_path: Path, mlflow_client: Any) -> None:
    (tmp_path / "run").mkdir()
    kept = tmp_path / "run" / "mlflow.json"
    kept.write_text(json.dumps({"run": "0" * 32, "sent": {"loss": 10}}))
    send_all(tmp_path / "run", "mlflow", trained(10, 4.0))
    run_id = json.loads(kept.read_text())["run"]
    assert [point.step for point in mlflow_client().get_metric_history(run_id, "loss")] == [10]


def test_an_mlflow_server_that_is_down_stops_nothing(
    tmp_path: Path, mlflow_client: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    send_all(tmp_path / "run", "mlflow", *FIRST)
    assert "tracking with mlflow ended, the training goes on: MlflowException" in caplog.text


def wandb_records(folder: Path) -> Iterator[Any]:
    """What runs without a server left, in the order of time: records in the framing of LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, whole, place = file.read_bytes(), b"", 7  # after the name and version of the format
        while place + 7 <= len(data):
            if 32768 - place % 32768 < 7:  # a header does not cross two blocks
                place += 32768 - place % 32768
            _, length, kind = struct.unpack("<IHB", data[place : place + 7])
            whole += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or the last part
                yield Record.FromString(whole)
                whole = b""


def test_wandb_without_a_server_continues_its_run_and_gets_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", exc_type=ImportError)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    of_the_caller = wandb.run
    send_all(tmp_path / "run", "wandb", *FIRST)
    run_id = json.loads((tmp_path / "run" / "wandb.json").read_text())["run"]
    send_all(tmp_path / "run", "wandb", *SECOND)
    assert wandb.run is of_the_caller
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for record in wandb_records(tmp_path / "run"):
        if record.HasField("run"):
            assert (record.run.run_id, record.run.project, record.run.display_name) == (run_id, "ranker", "animals")
        items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for name in CURVES.keys() & items.keys():
            points[name].append((items["step"], items[name]))
    assert points == CURVES
