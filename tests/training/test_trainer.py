"""The stage ``train`` with Ray: two workers, a killed driver, a lost worker."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ranker.config import Experiment, load_experiment
from ranker.manifest import StageError
from ranker.training.progress import LOG
from ranker.training.trainer import fit


def experiment(animals: Path, backbone: str, output: Path, **train: object) -> Experiment:
    section = {
        "model": backbone, "groups": str(animals / "groups.parquet"), "epochs": 100, "max_steps": 12, "batch_size": 4,
        "group_size": 4, "max_length": 32, "learning_rate": 1e-3, "precision": "fp32", "loss": "bce",
        "checkpoint_every": 5, "log_every": 5,
    }  # fmt: skip
    return Experiment.model_validate({"output_dir": str(output), "train": section | train})


def messages(folder: Path) -> list[str]:
    lines = (json.loads(line) for line in (folder / LOG).read_text().splitlines())
    return [line["message"] for line in lines if "message" in line]


@pytest.mark.usefixtures("ray_cluster")
def test_fit_leaves_a_model_folder_and_finds_it_again(animals: Path, tiny_backbone: str, tmp_path: Path) -> None:
    config = experiment(animals, tiny_backbone, tmp_path / "run")
    done = fit(config)
    assert done.folder == tmp_path / "run" / "model"
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", LOG, "manifest.json"} == {
        file.name for file in done.folder.iterdir()
    } - {"tokenizer_config.json", "special_tokens_map.json"}
    assert done.outcome["steps"] == 12 and done.outcome["pairs"] == 12 * 16
    assert set(done.outcome["dev"]) == {"ndcg@10", "mrr@10", "map", "hit_rate@10"}
    assert "2 workers on cpu in fp32, ZeRO-2, 48 groups" in messages(done.folder)[0]
    assert f"base_model: {tiny_backbone}" in (done.folder / "README.md").read_text()
    assert fit(config).skipped


def test_groups_that_are_not_there_are_named(animals: Path, tiny_backbone: str, tmp_path: Path) -> None:
    config = experiment(animals, tiny_backbone, tmp_path / "run", groups=str(tmp_path / "nothing.parquet"))
    with pytest.raises(StageError, match=r"nothing\.parquet"):
        fit(config)
    with pytest.raises(StageError, match="no finished stage"):
        fit(experiment(animals, tiny_backbone, tmp_path / "run", groups=None))


DRIVER = """
import sys
from ranker.config import load_experiment
from ranker.training.trainer import fit
fit(load_experiment(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_driver_continues_from_the_last_checkpoint(animals: Path, tiny_backbone: str, tmp_path: Path) -> None:
    config = experiment(animals, tiny_backbone, tmp_path / "killed", max_steps=90)
    (tmp_path / "killed.yaml").write_text(config.to_yaml())
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path / "killed.yaml")], env=environment)
    log = tmp_path / "killed" / ".model.partial" / LOG
    deadline = time.monotonic() + 400
    while not (log.is_file() and '"step": 40,' in log.read_text()):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not (tmp_path / "killed" / "model").exists()

    done = fit(load_experiment(tmp_path / "killed.yaml"))
    resumed = messages(done.folder)[-1]
    assert resumed.startswith("resuming after step ") and int(resumed.split()[3]) >= 30
    assert done.outcome["pairs"] == 90 * 16
    through = fit(experiment(animals, tiny_backbone, tmp_path / "through", max_steps=90))
    assert same_weights(done.folder, through.folder)


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return all(torch.equal(first[name], second[name]) for name in first)
