"""Checkpoints in a bucket: a real S3 client against a server of its protocol on this machine."""

import json
import logging
import threading
import time
from pathlib import Path

import psutil
import pyarrow.fs
import pytest

from ranker.config import Experiment
from ranker.training.progress import LOG
from ranker.training.trainer import fit

moto_server = pytest.importorskip("moto.server")
BUCKET = "runs"
logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it tells of every request


@pytest.fixture
def bucket():
    """URI of a folder in an empty bucket."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = f"scheme=http&endpoint_override={host}:{port}&region=us-east-1&allow_bucket_creation=true"
    uri = f"s3://key:secret@{BUCKET}/some/path?{options}"
    filesystem, _ = pyarrow.fs.FileSystem.from_uri(uri)
    filesystem.create_dir(BUCKET)
    yield uri
    server.stop()


def files(uri: str) -> list[str]:
    filesystem, path = pyarrow.fs.FileSystem.from_uri(uri)
    selector = pyarrow.fs.FileSelector(path, allow_not_found=True, recursive=True)
    return [found.path for found in filesystem.get_file_info(selector) if found.is_file]


def recorded(uri: str) -> bool:
    """Whether Ray's controller has taken note of a checkpoint; files of one are there earlier."""
    filesystem, _ = pyarrow.fs.FileSystem.from_uri(uri)
    for path in files(uri):
        if path.endswith("checkpoint_manager_snapshot.json"):
            with filesystem.open_input_stream(path) as stream:
                return json.loads(stream.read())["latest_checkpoint_result"] is not None
    return False


def kill_a_worker_after_a_checkpoint(uri: str) -> None:
    while not recorded(uri):
        time.sleep(0.1)
    named = [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]
    named[-1].kill()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_whose_checkpoints_lie_in_a_bucket_survives_a_killed_worker(
    animals: Path, tiny_backbone: str, tmp_path: Path, bucket: str
) -> None:
    section = {
        "model": tiny_backbone, "groups": str(animals / "groups.parquet"), "epochs": 100, "max_steps": 200,
        "batch_size": 4, "group_size": 4, "max_length": 32, "learning_rate": 1e-3, "precision": "fp32", "loss": "bce",
        "checkpoint_every": 20, "log_every": 20, "storage": bucket,
    }  # fmt: skip
    config = Experiment.model_validate({"output_dir": str(tmp_path), "train": section})
    killer = threading.Thread(target=kill_a_worker_after_a_checkpoint, args=(bucket,), daemon=True)
    killer.start()
    done = fit(config)
    killer.join(timeout=1)
    assert not killer.is_alive(), "a checkpoint lay in the bucket, and then a worker was killed"
    lines = [json.loads(line) for line in (done.folder / LOG).read_text().splitlines()]
    told = [line["message"] for line in lines if "message" in line]
    assert sum("resuming after step" in message for message in told) == 1, told
    assert done.outcome["steps"] == 200
    assert not files(bucket), "what was left of the run is gone"
