"""Training on two raylets: a worker is killed, then a whole raylet; no group is learnt from twice or left out."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from ranker.config import Experiment
from ranker.training.order import Order, Part
from ranker.training.progress import LOG

STEPS, GROUPS = 40, 48

# The driver: one cluster of two raylets of one core, in which a calm run and an elastic one, which loses a worker and
# then a raylet, follow each other.
DRIVER = """
import os, sys, tempfile, threading, time
import psutil
import ray
from ray.cluster_utils import Cluster
from ranker.config import load_experiment
from ranker.training.trainer import fit


def step(config):
    file = config.folder("train").with_name(".model.partial") / "order.jsonl"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def wait(config, until):
    while step(config) < until:
        time.sleep(0.02)


def disturb(config):
    wait(config, 12)
    named = [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]
    named[-1].kill()
    print(f"a worker is killed after {step(config)}", flush=True)  # in one piece: others write as well
    wait(config, 22)
    cluster.remove_node(node, allow_graceful=False)
    print(f"a raylet is killed after {step(config)}", flush=True)


with tempfile.TemporaryDirectory(prefix="rf-", dir="/tmp", ignore_cleanup_errors=True) as folder:
    # A raylet that is gone is noticed in two seconds instead of fifteen.
    health = {"health_check_period_ms": 500, "health_check_failure_threshold": 3, "health_check_timeout_ms": 1000}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "temp_dir": folder, "include_dashboard": False, "_system_config": health},
    )
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    for name in ("calm", "faults"):
        config = load_experiment(f"{sys.argv[1]}/{name}.yaml")
        if name == "faults":
            os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "2"  # a run that waits for it is not over too early
            threading.Thread(target=disturb, args=(config,), daemon=True).start()
        start = time.monotonic()
        fit(config)
        print(name, "took", round(time.monotonic() - start), flush=True)
    ray.shutdown()
    cluster.shutdown()
"""


def run_both(backbone: str, groups: Path, folder: Path) -> dict[str, int]:
    """Train in ``folder/calm`` and ``folder/faults``; after how many steps what was killed."""
    section = {
        "model": backbone, "groups": str(groups), "epochs": 100, "max_steps": STEPS, "batch_size": 6, "group_size": 4,
        "max_length": 32, "learning_rate": 1e-3, "precision": "fp32", "loss": "bce", "checkpoint_every": 5,
        "log_every": 5, "record_order": True,
    }  # fmt: skip
    elastic = {"num_workers": [1, 2], "deepspeed": {"stage": 3}}
    for name, further in (("calm", {"placement": "STRICT_SPREAD"}), ("faults", elastic)):
        config = Experiment.model_validate({"output_dir": str(folder / name), "train": section | further})
        (folder / f"{name}.yaml").write_text(config.to_yaml())
    # Ray first tries to start as many workers as before, and would wait for a minute; and beside each run it starts a
    # process that looks out for notices.
    environment = os.environ | {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    }  # fmt: skip
    command = [sys.executable, "-c", DRIVER, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=700, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    happened = re.findall(r"a (worker|raylet) is killed after (\d+)", done.stdout)
    return {name: int(number) for name, number in happened}


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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_neither_a_killed_worker_nor_a_killed_raylet_repeats_or_skips_a_group(
    animals: Path, tiny_backbone: str, tmp_path: Path
) -> None:
    happened = run_both(tiny_backbone, animals / "groups.parquet", tmp_path)
    assert happened["worker"] < happened["raylet"] < STEPS, "both happened in the middle"
    calm, faults = (tmp_path / name / "model" for name in ("calm", "faults"))
    told = started(faults)
    assert "2 workers" in told[0] and "1 workers" in told[-1] and "resuming after step" in told[-1]
    assert sum("resuming after step" in message for message in told) >= 2
    assert order(calm) == order(faults) == EXPECTED
    seen = [query_id for step in EXPECTED[:8] for query_id in step]
    assert sorted(seen) == sorted({f"q{row}" for row in range(GROUPS)})  # an epoch is every group once
    # ZeRO-3 against ZeRO-2, one worker against two: sums of another order; there is no dropout.
    assert difference(calm, faults) < 1e-4
