"""The friendly class as it is sketched, on examples in memory."""

import logging
from pathlib import Path

import pytest

from ranker.config import ConfigError
from ranker.pretrained import ModelNotFoundError
from ranker.training import CrossEncoderTrainer
from ranker.training import cross_encoder as module

TRIPLES = [
    ("where is a cat", "the cat is here", "the dog is here"),
    ("where is a cat", "the cat is here", "the bird is here"),
    ("where is a dog", "the dog is here", "the cat is here"),
    ("where is a bird", "the bird is here", "the cat is here"),
]


@pytest.mark.usefixtures("ray_cluster")
def test_the_sketched_call_works_on_a_notebook_without_a_gpu(
    tiny_backbone: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranker.training.engine.instruction_sets", lambda: ("avx2",))
    trainer = CrossEncoderTrainer(
        model_name=tiny_backbone, num_labels=1, loss_function="bce", use_lora=True, lora_r=8, lora_alpha=16
    )
    with caplog.at_level(logging.INFO):
        done = trainer.train(
            train_samples=TRIPLES, epochs=3, batch_size=16, learning_rate=2e-5,
            output_dir=tmp_path / "models" / "reranker", mixed_precision="fp16", gradient_accumulation_steps=4,
            max_length=32,
        )  # fmt: skip
    assert "does not compute in fp16; training in" in caplog.text
    assert done.folder == tmp_path / "models" / "reranker" and (done.folder / "model.safetensors").is_file()
    config = done.manifest.config
    assert (config["batch_size"], config["group_size"], config["loss_options"]) == (64, 3, {"pos_weight": 1.33})
    assert "step 1/1: loss" in caplog.text  # the driver tells the worker's lines
    from ranker.scoring.scorer import load_scorer

    assert load_scorer(done.folder).score([("where is a cat", "the cat is here")]).shape == (1,)


def run(trainer: CrossEncoderTrainer, folder: Path, **settings: object) -> None:
    trainer.train(TRIPLES, output_dir=folder / "model", max_length=32, **settings)


def test_mistakes_are_named_before_anything_starts(tiny_backbone: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.max_lenght.*did you mean 'max_length'"):
        run(CrossEncoderTrainer(tiny_backbone), tmp_path, max_lenght=3)
    with pytest.raises(ValueError, match="mixed_precision 'int4'"):
        run(CrossEncoderTrainer(tiny_backbone), tmp_path, mixed_precision="int4")
    with pytest.raises(KeyError, match="did you mean 'lce'"):
        run(CrossEncoderTrainer(tiny_backbone, loss_function="lcee"), tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"bert-base-uncased.*hub"):
        run(CrossEncoderTrainer("bert-base-uncased"), tmp_path)
    assert not (tmp_path / "model").exists()


def test_an_odd_batch_takes_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert module._workers(None, 3)["train.num_workers"] == 1
    assert module._workers(None, 16)["train.num_workers"] == 2
