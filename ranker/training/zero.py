"""The train section as DeepSpeed's own configuration, and the choice of precision; pure."""

import math
from typing import Any, Literal

from ranker.config import Precision, TrainConfig

Arithmetic = Literal["fp32", "bf16", "fp16"]


class PrecisionError(ValueError):
    """A precision that the device cannot compute in; the message says what to use."""


def choose_precision(precision: Precision, device: str, *, has_bf16: bool, has_fp16: bool) -> Arithmetic:
    """The arithmetic of a training step.

    ``auto`` is bf16 where the device has it, else fp16 on CUDA, else fp32. What was asked for by name is never
    replaced: bf16 on a CPU without it is emulated (slow, right), everything else that cannot be is an error.

    Args:
        precision: as configured. device: ``cpu`` or ``cuda``. has_bf16, has_fp16: what the device computes itself.

    Raises:
        PrecisionError: naming the device and what to use instead.
    """
    if precision == "auto":
        if has_bf16:
            return "bf16"
        return "fp16" if device == "cuda" else "fp32"
    possible = {"fp32": True, "bf16": has_bf16 or device == "cpu", "fp16": has_fp16}[precision]
    if not possible:
        instead = "bf16" if has_bf16 else "fp32"
        raise PrecisionError(
            f"train.precision {precision!r}: this {device} cannot compute in it; set it to 'auto' or {instead!r}"
        )
    return precision


def deepspeed_config(
    train: TrainConfig, arithmetic: Arithmetic, device: str, num_workers: int, universal: bool = False
) -> dict[str, Any]:
    """What ``deepspeed.initialize(config=...)`` takes; optimiser and schedule are ours and not in it.

    Args:
        train: the section. arithmetic: as chosen. device: ``cpu`` or ``cuda``. num_workers: there are now.
        universal: whether it will read a checkpoint of another number of workers.
    """
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size(train, num_workers),
        "gradient_accumulation_steps": train.gradient_accumulation_steps,
        "gradient_clipping": train.max_grad_norm,
        "zero_optimization": _zero(train, arithmetic, device),
        # torch's AdamW needs no compiler; DeepSpeed's own would be built for a minute and a half.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": arithmetic == "bf16"},
        "fp16": {"enabled": arithmetic == "fp16", "initial_scale_power": train.deepspeed.initial_scale_power},
        "checkpoint": {"load_universal": universal},
        "steps_per_print": 2**31 - 1,
        "wall_clock_breakdown": False,
    }


def micro_batch_size(train: TrainConfig, num_workers: int) -> int:
    """Groups that one worker computes between two exchanges, at most."""
    return math.ceil(train.batch_size / (num_workers * train.gradient_accumulation_steps))


def _zero(train: TrainConfig, arithmetic: Arithmetic, device: str) -> dict[str, Any]:
    # Below stage 1 DeepSpeed 0.19 divides fp16 gradients by a loss scale that it never multiplied the loss with, so
    # that nothing is learnt (its pull request 8393). Stage 1 is the same run, whose optimiser states are shared out.
    stage = max(1, train.deepspeed.stage) if arithmetic == "fp16" else train.deepspeed.stage
    section: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": train.deepspeed.bucket_size,
        "allgather_bucket_size": train.deepspeed.bucket_size,
        # A second stream exists on an accelerator only.
        "overlap_comm": device == "cuda",
    }
    if train.deepspeed.offload and train.deepspeed.stage > 0:
        section["offload_optimizer"] = {"device": "cpu"}
        if stage == 3:
            section["offload_param"] = {"device": "cpu"}
    return section
