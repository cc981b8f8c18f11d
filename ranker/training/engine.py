"""The DeepSpeed engine around a model, and what the workers agree on before it is made."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed

from ranker.config import TrainConfig
from ranker.machine import cpu_has_bf16, instruction_sets
from ranker.training.model import head_modules, parameter_groups
from ranker.training.progress import TrainingError
from ranker.training.zero import Arithmetic, choose_precision, deepspeed_config


def name_accelerator(device: str) -> None:
    """Tell DeepSpeed ``cpu`` or ``cuda`` before anything imports it; its own search takes time and warns."""
    os.environ.setdefault("DS_ACCELERATOR", device)


def choose_for_device(train: TrainConfig, device: str) -> Arithmetic:
    """The precision of a step on this machine's CPU or GPU.

    Raises:
        PrecisionError: where it was asked for by name and cannot be.
    """
    if device == "cuda":
        has_bf16, has_fp16 = torch.cuda.is_bf16_supported(including_emulation=False), True
    else:
        has_bf16, has_fp16 = cpu_has_bf16(), "avx512_fp16" in instruction_sets()
    return choose_precision(train.precision, device, has_bf16=has_bf16, has_fp16=has_fp16)


def agree(mine: Arithmetic) -> Arithmetic:
    """What all workers compute in: fp32 where machines of different kinds chose differently."""
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return mine if len(set(everyone)) == 1 else "fp32"


def agree_on_most(number: int, device: torch.device) -> int:
    """The largest number that a worker says."""
    tensor = torch.tensor(number, device=device)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)
    return int(tensor)


def start_engine(model: Any, train: TrainConfig, arithmetic: Arithmetic, device: str, universal: bool = False) -> Any:
    """``deepspeed.initialize`` with torch's AdamW; the process group must exist already.

    Args:
        model: with or without adapters, in fp32. train: the section. arithmetic, device: as chosen.
        universal: whether it will read a checkpoint of another number of workers.
    """
    import deepspeed

    if device == "cpu":
        # It would compile a shared-memory op for most of a minute that Ray's process group never uses.
        deepspeed.ops.__dict__["__compatible_ops__"] = {}
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    groups = parameter_groups(model, train, head_modules(base))
    optimizer = torch.optim.AdamW(groups, fused=not train.deepspeed.offload or device == "cpu")
    start = {name: parameter.detach().clone() for name, parameter in trained_parameters(model)}
    config = deepspeed_config(train, arithmetic, device, torch.distributed.get_world_size(), universal)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    if arithmetic != "fp32":
        _restore_start(engine, start)
    engine.train()
    return engine


def trained_parameters(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Names and parameters of what is not frozen."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _restore_start(engine: Any, start: dict[str, torch.Tensor]) -> None:
    """Give the optimiser the weights that were loaded: DeepSpeed made its fp32 copy from already rounded ones."""
    from deepspeed.utils import safe_get_full_fp32_param, safe_set_full_fp32_param

    for name, parameter in trained_parameters(engine.module):
        if safe_get_full_fp32_param(parameter) is not None:
            safe_set_full_fp32_param(parameter, start[name].to(engine.device))


def optimise(engine: Any) -> None:
    """The engine's step, which fp16 may leave out to try a smaller loss scale.

    Raises:
        TrainingError: where there is no smaller one.
    """
    try:
        engine.step()
    except Exception as error:
        if "loss scale" not in str(error):
            raise
        raise TrainingError(
            "fp16: gradients overflow at the smallest loss scale; train in bf16 or fp32 (train.precision), lower "
            "train.learning_rate, or raise train.warmup_ratio"
        ) from error


def sum_over_workers(values: np.ndarray, device: torch.device) -> np.ndarray:
    """Element by element, in float64."""
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).to(device)
    torch.distributed.all_reduce(tensor)
    return tensor.cpu().numpy()


@contextlib.contextmanager
def scoring(engine: Any) -> Any:
    """A block in which the model neither drops nor keeps gradients."""
    engine.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        engine.train()
