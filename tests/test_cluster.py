import copy
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]
FILE = ROOT / "cluster.yaml"
RAY = str(Path(sys.executable).with_name("ray"))


@pytest.fixture
def cluster() -> dict:
    return yaml.safe_load(FILE.read_text())


def test_cluster_is_rays_own_schema(cluster: dict):
    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    # Ray's defaults for this cloud fill in what is missing, so nothing of ours may have been dropped on the way.
    assert cluster.keys() <= prepared.keys()
    assert prepared["head_setup_commands"][:2] == cluster["setup_commands"]


def test_schema_refuses_a_typo(cluster: dict):
    cluster["available_node_types"]["gpu_worker"]["max_worker"] = 3
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(cluster))


def test_there_are_cpu_and_gpu_workers_that_come_and_go(cluster: dict):
    types = cluster["available_node_types"]
    workers = {name: node for name, node in types.items() if name != cluster["head_node_type"]}
    gpus = {name: node["resources"].get("GPU", 0) for name, node in workers.items()}
    assert gpus == {"cpu_worker": 0, "gpu_worker": 1}
    assert all(node["min_workers"] == 0 < node["max_workers"] for node in workers.values())
    assert sum(node["max_workers"] for node in workers.values()) <= cluster["max_workers"]
    assert types["head"]["resources"] == {"CPU": 0}


def test_files_that_it_names_exist(cluster: dict):
    mounts = cluster["file_mounts"]
    ours = [source for source in mounts.values() if not source.startswith("~")]
    assert ours == ["."]
    assert all((ROOT / source).exists() for source in ours)
    assert (ROOT / "pyproject.toml").is_file()  # what `pip install` of the mounted folder needs
    [target] = [target for target, source in mounts.items() if source == "."]
    assert f"pip install {target}" in cluster["setup_commands"]
    named = re.findall(r"\b(?:jobs|serve_configs|docs)/[\w./]+\w", FILE.read_text())
    assert named and all((ROOT / name).is_file() for name in named), named


def test_every_node_asks_for_the_token_and_no_port_but_ssh_is_open(cluster: dict):
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        [start] = [command for command in commands if "ray start" in command]
        assert start.startswith("export RAY_AUTH_MODE=token;")
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    [head] = [command for command in cluster["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in head
    assert cluster["provider"]["security_group"]["IpPermissions"] == []


def test_images_are_of_the_ray_that_the_project_pins(cluster: dict):
    import ray

    images = [cluster["docker"]["image"]]
    images += [node["docker"]["worker_image"] for node in cluster["available_node_types"].values() if "docker" in node]
    assert all(image.startswith(f"rayproject/ray:{ray.__version__}-py311") for image in images)


def small_experiment(folder: Path, pets: Path, retriever: str, backbone: str) -> Path:
    plain = {
        "name": "pets",
        "output_dir": str(folder / "runs"),
        "data": {"source": str(pets)},
        "index": {"model": retriever, "num_workers": 1},
        "mine": {"num_negatives": 2, "num_candidates": 5, "num_dev_queries": 2, "relative_margin": None},
        "train": {"model": backbone, "epochs": 1, "num_workers": 1, "max_length": 48},
    }
    file = folder / "pets.yaml"
    file.write_text(yaml.safe_dump(plain))
    return file


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_listener(port: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)


@pytest.fixture
def job_address(monkeypatch) -> Iterator[str]:
    """The dashboard of a cluster of its own: each of its ports is free, so it cannot meet another on this machine.

    As docs/cluster.md says, it asks for a token, which the environment hands to everybody here.
    """
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    dashboard, agent = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="rj-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        options = {"port": free_port(), "dashboard-port": dashboard, "dashboard-agent-listen-port": agent,
                   "num-cpus": 2, "temp-dir": folder, "node-ip-address": "127.0.0.1"}  # fmt: skip
        command = [RAY, "start", "--head", "--block", *(f"--{name}={value}" for name, value in options.items())]
        # At its end Ray would wait half a minute for replicas of a service to move to other nodes.
        environment = {**os.environ, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        try:
            wait_for_listener(agent, 60)  # without its agent a cluster takes no jobs
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            process.terminate()  # with --block, the cluster ends with this process
            process.wait(60)


@pytest.mark.slow
def test_a_submitted_job_trains_on_a_local_cluster(job_address, tmp_path, pets, tiny_retriever, tiny_backbone):
    config = small_experiment(tmp_path, pets, tiny_retriever, tiny_backbone)
    submit = [RAY, "job", "submit", "--address", job_address, "--working-dir", str(ROOT)]
    command = [*submit, "--", sys.executable, "jobs/train.py", str(config)]
    end = time.monotonic() + 90
    while True:
        result = subprocess.run(command, capture_output=True, text=True, timeout=280)
        # A cluster that has just started takes jobs a little later.
        starting = any(said in result.stderr for said in ("No available agent", "Failed to connect"))
        if not starting or time.monotonic() > end:
            break
        time.sleep(2)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-500:]
    assert "succeeded" in result.stdout + result.stderr
    model = tmp_path / "runs" / "model"
    assert (model / "model.safetensors").is_file()
    assert json.loads((model / "manifest.json").read_text())["stage"] == "train"
