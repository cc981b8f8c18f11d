"""Training on two raylets: a worker is killed, then a whole raylet; no group is learnt from twice or left out."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from ranker.config import Experiment
from ranker.training.order import Order, Part
from ranker.training.progress import LOG

STEPS, GROUPS = 40, 48

# The driver: a cluster of two raylets of one core, and, where it is asked for, what happens to it on the way.
DRIVER = """
import os, signal, sys, tempfile, threading, time
from pathlib import Path
import psutil
import ray
from ray.cluster_utils import Cluster
from ranker.config import load_experiment
from ranker.training.trainer import fit

config = load_experiment(sys.argv[1])
what = sys.argv[2]
work = config.folder("train").with_name(".model.partial")


def step():
    file = work / "order.jsonl"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def wait(until):
    while step() < until:
        time.sleep(0.02)


def workers():
    return [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]


def disturb(node):
    if "worker" in what:
        wait(12)
        workers()[-1].kill()
        print("a worker is killed after", step(), flush=True)
    if "raylet" in what:
        wait(22)
        cluster.remove_node(node, allow_graceful=False)
        print("a raylet is killed after", step(), flush=True)


with tempfile.TemporaryDirectory(prefix="rf-", dir="/tmp", ignore_cleanup_errors=True) as folder:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "temp_dir": folder})
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    threading.Thread(target=disturb, args=(node,), daemon=True).start()
    done = fit(config)
    print("steps", done.outcome["steps"], flush=True)
    ray.shutdown()
    cluster.shutdown()
"""


def run(what: str, groups: Path, backbone: str, folder: Path, **train: object) -> tuple[Path, str]:
    """The driver in a process of its own: the model folder, and what it printed."""
    folder.mkdir()
    section = {
        "model": backbone, "groups": str(groups / "groups.parquet"), "epochs": 100, "max_steps": STEPS,
        "batch_size": 6, "group_size": 4, "max_length": 32, "learning_rate": 1e-3, "precision": "fp32", "loss": "bce",
        "checkpoint_every": 5, "log_every": 5, "record_order": True, "placement": "STRICT_SPREAD",
    }  # fmt: skip
    config = Experiment.model_validate({"output_dir": str(folder / "runs"), "train": section | train})
    (folder / "experiment.yaml").write_text(config.to_yaml())
    command = [sys.executable, "-c", DRIVER, str(folder / "experiment.yaml"), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder / "runs" / "model", done.stdout


def order(model: Path) -> list[list[str]]:
    """The query ids of each step, as the workers that did it in the end wrote them."""
    records = [json.loads(line) for line in (model / "order.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    return [record["query_ids"] for record in records]


def started(model: Path) -> list[str]:
    lines = (json.loads(line) for line in (model / LOG).read_text().splitlines())
    return [line["message"] for line in lines if "message" in line]


def difference(one: Path, other: Path) -> float:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return max(float((first[name] - second[name]).abs().max()) for name in first)


EXPECTED = [[f"q{row}" for row in Order(np.ones(GROUPS), [Part(0, GROUPS, 6)], 13).rows(step)] for step in range(STEPS)]


@pytest.fixture(scope="module")
def calm(tiny_backbone: str, tmp_path_factory: pytest.TempPathFactory, written_animals: Callable[..., Path]) -> Path:
    """The model of a run to which nothing happens."""
    folder = tmp_path_factory.mktemp("calm")
    written_animals(folder / "animals")
    return run("nothing", folder / "animals", tiny_backbone, folder / "run")[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_changes_nothing(calm: Path, animals: Path, tiny_backbone: str, tmp_path: Path) -> None:
    killed, said = run("worker", animals, tiny_backbone, tmp_path / "killed")
    assert int(re.findall(r"a worker is killed after (\d+)", said)[0]) < STEPS, "it happened in the middle"
    resumed = [message for message in started(killed) if "resuming after step" in message]
    assert len(resumed) == 1 and "2 workers" in resumed[0]
    assert order(calm) == order(killed) == EXPECTED
    seen = [query_id for step in EXPECTED[:8] for query_id in step]
    assert sorted(seen) == sorted({f"q{row}" for row in range(GROUPS)})  # an epoch is every group once
    assert difference(calm, killed) == 0.0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", [2, 3])
def test_an_elastic_run_survives_a_killed_raylet(
    calm: Path, animals: Path, tiny_backbone: str, tmp_path: Path, stage: int
) -> None:
    elastic = {"num_workers": [1, 2], "placement": "SPREAD", "deepspeed": {"stage": stage}}
    lost, said = run("raylet", animals, tiny_backbone, tmp_path / "lost", **elastic)
    assert int(re.findall(r"a raylet is killed after (\d+)", said)[0]) < STEPS, "it happened in the middle"
    told = started(lost)
    assert "2 workers" in told[0] and "1 workers" in told[-1] and "resuming after step" in told[-1]
    assert order(lost) == EXPECTED
    assert difference(calm, lost) < 1e-4  # sums of another order, no dropout
