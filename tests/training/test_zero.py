import pytest

from ranker.config import TrainConfig
from ranker.training.zero import PrecisionError, choose_precision, deepspeed_config, micro_batch_size


@pytest.mark.parametrize(
    ("asked", "device", "has_bf16", "has_fp16", "chosen"),
    [
        ("auto", "cpu", True, True, "bf16"),
        ("auto", "cpu", False, True, "fp32"),
        ("auto", "cuda", True, True, "bf16"),
        ("auto", "cuda", False, True, "fp16"),
        ("fp32", "cpu", True, True, "fp32"),
        ("bf16", "cpu", False, False, "bf16"),  # emulated, but right
        ("fp16", "cpu", False, True, "fp16"),
    ],
)
def test_precision(asked: str, device: str, has_bf16: bool, has_fp16: bool, chosen: str) -> None:
    assert choose_precision(asked, device, has_bf16=has_bf16, has_fp16=has_fp16) == chosen


@pytest.mark.parametrize(
    ("asked", "device", "has_bf16", "instead"),
    [("fp16", "cpu", True, "bf16"), ("fp16", "cpu", False, "fp32"), ("bf16", "cuda", False, "fp32")],
)
def test_what_was_asked_for_by_name_is_never_replaced(asked: str, device: str, has_bf16: bool, instead: str) -> None:
    with pytest.raises(PrecisionError, match=f"'{asked}'.*{device}.*'{instead}'"):
        choose_precision(asked, device, has_bf16=has_bf16, has_fp16=False)


def test_numbers_are_said_once() -> None:
    train = TrainConfig(batch_size=24, num_workers=2, gradient_accumulation_steps=3, max_grad_norm=0.5)
    config = deepspeed_config(train, "bf16", "cpu", 2)
    assert config["train_micro_batch_size_per_gpu"] == 4 and config["gradient_accumulation_steps"] == 3
    assert micro_batch_size(train, 5) == 2  # 24 groups in 15 shares, of which some have one more
    assert config["gradient_clipping"] == 0.5
    assert (config["bf16"]["enabled"], config["fp16"]["enabled"]) == (True, False)
    assert "optimizer" not in config and "scheduler" not in config


@pytest.mark.parametrize(("stage", "offloaded"), [(0, []), (2, ["optimizer"]), (3, ["optimizer", "param"])])
def test_offload(stage: int, offloaded: list[str]) -> None:
    section = deepspeed_config(TrainConfig(deepspeed={"stage": stage, "offload": True}), "fp32", "cuda", 1)
    found = [name.removeprefix("offload_") for name in section["zero_optimization"] if name.startswith("offload_")]
    assert (section["zero_optimization"]["stage"], found) == (stage, offloaded)


@pytest.mark.parametrize(("arithmetic", "stages"), [("fp16", [1, 1, 2, 3]), ("bf16", [0, 1, 2, 3])])
def test_fp16_takes_the_optimiser_that_scales_the_loss(arithmetic: str, stages: list[int]) -> None:
    configs = (deepspeed_config(TrainConfig(deepspeed={"stage": stage}), arithmetic, "cuda", 1) for stage in range(4))
    assert [config["zero_optimization"]["stage"] for config in configs] == stages
