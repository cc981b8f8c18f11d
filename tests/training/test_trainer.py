"""The stage ``train`` with Ray: two workers, a killed driver."""

import json
from pathlib import Path

import pytest
import ray.train
import torch
from safetensors.torch import load_file

from ranker.config import Experiment
from ranker.manifest import StageError, read_manifest
from ranker.training.progress import LOG
from ranker.training.trainer import RunPlace, fit
from ranker.training.worker import NOT_NEEDED


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
    storage = tmp_path / "elsewhere"
    config = experiment(
        animals, tiny_backbone, tmp_path / "run", storage=str(storage), track=["tensorboard"], record_order=True
    )
    seen = tmp_path / "seen"

    class Watch(ray.train.UserCallback):  # called in Ray's controller, another process
        def after_report(self, run_context, metrics, checkpoint) -> None:
            if list(storage.rglob("world.json")):
                seen.touch()

    done = fit(config, [Watch()])
    assert done.folder == tmp_path / "run" / "model"
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", LOG, "manifest.json", "order.jsonl",
            "tracking"} == {
        file.name for file in done.folder.iterdir()
    } - {"tokenizer_config.json", "special_tokens_map.json"}  # fmt: skip
    assert seen.exists() and not list(storage.iterdir()), "checkpoints lay there until the end"
    assert list((done.folder / "tracking").glob("events.out.tfevents.*"))
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


def test_what_a_recipe_lacks_is_named_before_anything_starts(animals: Path, tiny_backbone: str, tmp_path: Path) -> None:
    def refused(kind: type[Exception], match: str, **train: object) -> None:
        with pytest.raises(kind, match=match):
            fit(experiment(animals, tiny_backbone, tmp_path / "run", **train))

    refused(StageError, r"carry no scores.*mine again", distill={"weight": 0.5})
    refused(StageError, r"carry no scores", target="scores", loss="mse")
    refused(StageError, r"train\.mix\.0\.groups.*nowhere", mix=[{"groups": "nowhere", "share": 0.5}])
    mixes = [{"groups": str(animals), "share": 0.25} for _ in range(3)]
    refused(ValueError, "batch_size 3: train.mix takes 3 groups", mix=mixes, batch_size=3, num_workers=1)
    refused(ValueError, r"quantize.*train\.lora\.enabled", lora={"quantize": "nf4"})
    refused(ValueError, r"quantize.*needs a GPU", lora={"quantize": "nf4", "enabled": True})
    refused(ValueError, "unknown tracker 'tensorbord'.*tensorboard", track=["tensorbord"])
    refused(ValueError, r"train\.metric 'ndcg@5'.*did you mean 'ndcg@10'", metric="ndcg@5")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "groups.parquet").symlink_to(animals / "groups.parquet")
    waits = {"groups": str(alone), "patience": 1, "evaluate_every": 2}
    refused(StageError, r"no dev queries lie beside the groups.*train\.patience", **waits)
    refused(KeyError, "did you mean 'listnet'", distill={"loss": "lisnet"})


def test_what_is_left_of_a_run_is_deleted_from_its_storage(tmp_path: Path) -> None:
    for storage in (str(tmp_path), tmp_path.as_uri()):
        (tmp_path / "run" / "checkpoint").mkdir(parents=True)
        (tmp_path / "other").mkdir(exist_ok=True)
        RunPlace(storage, "run").remove()
        assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_ray_still_has_what_is_left_out() -> None:
    from ray.train.v2.api import data_parallel_trainer

    assert all(hasattr(data_parallel_trainer, name) for name in NOT_NEEDED)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_driver_continues_from_the_last_checkpoint(interrupted_quickstart, tmp_path: Path) -> None:
    story = interrupted_quickstart
    killed = story.config.folder("train")
    resumed = [message for message in messages(killed) if message.startswith("resuming after step ")]
    assert len(resumed) == 1 and story.recorded <= int(resumed[0].split()[3]) < 14
    groups = str(story.config.folder("mine"))
    # How often a checkpoint is written decides nothing.
    changes = {"output_dir": str(tmp_path), "train.groups": groups, "train.checkpoint_every": 14}
    through = fit(story.config.with_overrides(changes))
    assert through.manifest.key == read_manifest(killed).key
    assert through.outcome["pairs"] == read_manifest(killed).outcome["pairs"] == 14 * 4 * 3
    assert same_weights(killed, through.folder)


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return all(torch.equal(first[name], second[name]) for name in first)
