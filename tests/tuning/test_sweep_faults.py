"""Sweeps that lose what they run on: driver, worker, raylet."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from ranker.config import Experiment, load_experiment
from ranker.tuning.records import LOG, OUTCOME, TRIALS

COMMAND = "from ranker.cli import app; app()"


def write_experiment(folder: Path, backbone: str, groups: Path, **changes: object) -> Path:
    """An experiment file of tiny trials that are measured every fifth step."""
    # No rate at which a tiny model may collapse, which would rightly fail a trial: whether it does at 5e-3 depends on
    # how a processor rounds.
    space = {"train.learning_rate": {"sampler": "loguniform", "lower": 1e-4, "upper": 1e-3}}
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    config = Experiment().with_overrides({
        "output_dir": str(folder / "run"), "train.model": backbone, "train.groups": str(groups),
        "train.num_workers": 1, "train.batch_size": 2, "train.group_size": 3, "train.max_length": 32,
        "train.precision": "fp32", "train.epochs": 100, "train.max_steps": 40, "train.checkpoint_every": 5,
        "train.evaluate_every": 5, "tune.space": str(folder / "space.yaml"), "tune.num_trials": 3,
        "tune.num_seeds": 0, "tune.keep_best": 3, "ray.num_cpus": 2, "tune.max_concurrent": 1, **changes,
    })  # fmt: skip
    (folder / "experiment.yaml").write_text(config.to_yaml())
    return folder / "experiment.yaml"


def steps_of(work: Path) -> list[int]:
    """The last measured step of each trial that has none of its outcome yet."""
    found = []
    for folder in (work / TRIALS).glob("*"):
        log = folder / ".model.partial" / LOG
        if not (folder / OUTCOME).is_file() and log.is_file():
            records = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
            found += [record["step"] for record in records if "dev" in record]
    return found


def messages(model: Path) -> list[str]:
    lines = (json.loads(line) for line in (model / LOG).read_text().splitlines())
    return [line["message"] for line in lines if "message" in line]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_driver_loses_at_most_a_last_measurement(mined, tiny_backbone, tmp_path) -> None:
    file = write_experiment(tmp_path, tiny_backbone, mined / "groups.parquet")
    work, log = tmp_path / "run" / ".sweep.partial", tmp_path / "log"
    command = [sys.executable, "-c", COMMAND, "tune", str(file)]

    def start() -> subprocess.Popen:
        with log.open("w") as stream:
            return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)

    process, deadline = start(), time.monotonic() + 900
    # One trial has ended, another has measured itself twice and is not near its end.
    while not (any((work / TRIALS).glob(f"*/{OUTCOME}")) and len(found := steps_of(work)) >= 2):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    ended = {file.parent.name: json.loads(file.read_text()) for file in (work / TRIALS).glob(f"*/{OUTCOME}")}
    reached = max(found)
    assert start().wait(timeout=1500) == 0, log.read_text()[-3000:]
    assert "continuing the sweep that stopped" in log.read_text()
    sweep = tmp_path / "run" / "sweep"
    rows = pq.read_table(sweep / "trials.parquet").to_pylist()
    assert len(rows) == 3 and all(row["status"] == "finished" for row in rows)
    assert all(row["progress"] == [step / 8 for step in range(1, 9)] for row in rows), "every measurement once"
    assert {told["seconds"] for told in ended.values()} <= {row["seconds"] for row in rows}, "not done again"
    models = [sweep / "best", *(sweep / "models").iterdir()]
    resumed = [said for model in models for said in messages(model) if said.startswith("resuming after step")]
    assert resumed and int(resumed[-1].split()[3]) >= reached - 5, "at most the last measurement is lost"


# The driver: a cluster of two raylets of one core; a worker of the first trial is killed, then a whole raylet.
FAULTS = """
import contextlib, json, sys, tempfile, threading, time
from pathlib import Path
import psutil
import ray
from ray.cluster_utils import Cluster
from ranker.config import load_experiment
from ranker.tuning.sweep import sweep

config = load_experiment(sys.argv[1])
work = config.folder("tune").with_name(".sweep.partial")


def measured():
    logs = (work / "trials").glob("*/.model.partial/training_log.jsonl")
    return sum('"dev"' in line for log in logs for line in log.read_text().splitlines())


# Whether a trial's controller has taken note of a checkpoint: measurements are there seconds earlier.
def recorded():
    for file in work.rglob("checkpoint_manager_snapshot.json"):
        with contextlib.suppress(OSError, ValueError):  # just being written, or its trial has ended
            if json.loads(file.read_text())["latest_checkpoint_result"] is not None:
                return True
    return False


def wait(until):
    while not until():
        time.sleep(0.05)


def disturb():
    wait(recorded)
    named = [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]
    named[-1].kill()
    print("a worker is killed", flush=True)
    wait(lambda: len(list((work / "trials").glob("*/outcome.json"))) >= 1 and measured() >= 2)
    cluster.remove_node(node, allow_graceful=False)
    print("a raylet is killed", flush=True)


with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp", ignore_cleanup_errors=True) as folder:
    health = {"health_check_period_ms": 500, "health_check_failure_threshold": 3, "health_check_timeout_ms": 1000}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "temp_dir": folder, "_system_config": health}
    )
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    threading.Thread(target=disturb, daemon=True).start()
    print("OUTCOME", json.dumps(sweep(config).outcome), flush=True)
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_neither_a_killed_worker_nor_a_killed_raylet_ends_a_sweep(mined, tiny_backbone, tmp_path) -> None:
    # Fifteen reports, each of which waits until the controller looks; no trial is stopped, so that each leaves its log.
    changes = {"train.max_steps": 400, "train.checkpoint_every": 20, "train.evaluate_every": 20}
    file = write_experiment(tmp_path, tiny_backbone, mined / "groups.parquet", **changes)
    environment = os.environ | {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, str(file)], capture_output=True, text=True, timeout=1700, env=environment
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "a worker is killed" in done.stdout and "a raylet is killed" in done.stdout
    sweep = load_experiment(file).folder("tune")
    rows = pq.read_table(sweep / "trials.parquet").to_pylist()
    failed = [row["error"] for row in rows if row["status"] == "failed"]
    assert len(rows) == 3 and not failed, "\n".join(failed)
    models = [sweep / "best", *(sweep / "models").glob("*")]
    assert any("resuming after step" in said for model in models for said in messages(model))
