"""Saving and loading the state of a DeepSpeed engine, and its weights as an ordinary model folder."""

import contextlib
import json
import shutil
from argparse import Namespace
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ranker.config import TrainConfig
from ranker.manifest import write_json
from ranker.training.engine import trained_parameters
from ranker.training.model import head_modules, load_model, merged

TAG, WORLD = "state", "world.json"
# DeepSpeed's name of what is different on each worker.
SHARDS = "*zero_pp_rank_*"


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Args:
        step: optimiser steps done. seconds: spent in them, over all restarts. pairs: seen.
        loss: of the last logged window; NaN before the first. measures: of the last measurement on dev queries.
        best: (measure, step) of the best measured weights, best first. waited: measurements since the best.
    """

    step: int = 0
    seconds: float = 0.0
    pairs: int = 0
    loss: float = float("nan")
    measures: dict[str, float] = field(default_factory=dict)
    best: list[tuple[float, int]] = field(default_factory=list)
    waited: int = 0

    def outcome(self) -> dict[str, Any]:
        """What the manifest keeps."""
        return {
            "steps": self.step,
            "pairs": self.pairs,
            "train_seconds": round(self.seconds, 1),
            "pairs_per_second": round(self.pairs / self.seconds, 1) if self.seconds else 0.0,
            "loss": self.loss,
            "dev": self.measures,
            "best": [list(pair) for pair in self.best],
        }


def save_state(engine: Any, folder: Path, progress: Progress) -> None:
    """Write this worker's part of the state; every worker must call it.

    Args:
        engine: DeepSpeed's. folder: may be another one for each worker; the parts have names of their own.
        progress: stored beside. Frozen weights are left out; they come from the backbone again.
    """
    engine.save_checkpoint(
        str(folder), tag=TAG, client_state={"progress": asdict(progress)}, exclude_frozen_parameters=True
    )
    write_json(folder / WORLD, {"workers": torch.distributed.get_world_size(), "step": progress.step})


def fits(folder: Path) -> bool:
    """Whether as many workers wrote a checkpoint as there are now; where not, see :func:`convert`."""
    told = json.loads((folder / WORLD).read_text("utf-8")) if (folder / WORLD).is_file() else {}
    return told.get("workers") == torch.distributed.get_world_size() or not list((folder / TAG).glob(SHARDS))


def convert(folder: Path, target: Path, rank: int) -> Path:
    """The checkpoint as ``target``, for any number of workers; every worker must call it.

    Args:
        folder: as :func:`save_state` left it. target: a folder that all workers see.
    """
    if rank == 0:
        from deepspeed.checkpoint import ds_to_universal

        shutil.rmtree(target, ignore_errors=True)
        places = {"input_folder": str(folder / TAG), "output_folder": str(target / TAG)}
        counts = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False}
        target.mkdir(parents=True)
        with contextlib.redirect_stdout(None):
            ds_to_universal.main(Namespace(**places, **counts, strict=True, inject_missing_state=True))
        (target / "latest_universal").write_text(TAG, "utf-8")
    torch.distributed.barrier()
    return target


def load_state(engine: Any, folder: Path) -> Progress:
    """Put the state into the engine and give the progress back; every worker must call it.

    Raises:
        FileNotFoundError: where the folder holds no such state.
    """
    settings = [_settings(group) for group in engine.optimizer.param_groups]
    loaded, client = engine.load_checkpoint(str(folder), tag=TAG, load_module_strict=False)
    if loaded is None:
        raise FileNotFoundError(f"{folder}: no checkpoint in it; delete the run's work folder and start again")
    # Of a converted checkpoint ZeRO-3 takes the first group's settings for all groups, and gives all of them one and
    # the same step counter, which would then count several times a step.
    for group, before in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(before)
    for state in getattr(engine.optimizer, "optimizer", engine.optimizer).state.values():
        if torch.is_tensor(state.get("step")):
            state["step"] = state["step"].clone()
    found = client["progress"]
    return Progress(**{**found, "best": [tuple(pair) for pair in found["best"]]})


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def trained_weights(engine: Any, keep: bool) -> dict[str, torch.Tensor]:
    """Name -> fp32 weights of everything that is trained, gathered from all workers; every worker must call it.

    These are the optimiser's own fp32 weights, not the rounded ones of the forward pass.

    Args:
        engine: DeepSpeed's, any ZeRO stage. keep: False on the workers that only help; they get an empty dict.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    for name, parameter in trained_parameters(engine.module):
        whole = safe_get_full_fp32_param(parameter)
        if keep:
            source = parameter.data if whole is None else whole
            weights[name] = source.detach().float().cpu().clone()
    return weights


def save_weights(weights: dict[str, torch.Tensor], file: Path) -> None:
    """Trained weights in a file of their own, whole or not at all."""
    temporary = file.with_suffix(".tmp")
    save_file(weights, temporary)
    temporary.replace(file)


def write_model(weights: dict[str, torch.Tensor], train: TrainConfig, seed: int, folder: Path) -> None:
    """The trained weights as a model folder that transformers and sentence-transformers open; adapters merged.

    With adapters their own files lie in ``adapter`` beside the merged model, for peft.

    Args:
        weights: as :func:`trained_weights` gives them. train, seed: of the run; they make the same frozen part.
    """
    plain = train.model_copy(update={"lora": train.lora.model_copy(update={"quantize": None})})
    model, tokenizer = load_model(plain, seed)
    _, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected:
        raise ValueError(f"weights that the model {train.model!r} does not have: {unexpected[:5]}")
    if train.lora.enabled:
        model.save_pretrained(folder / "adapter")
    whole = merged(model)
    if train.average_start:
        first, _ = load_model(plain.model_copy(update={"lora": plain.lora.model_copy(update={"enabled": False})}), seed)
        average(whole, first, train.average_start)
    whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def average(model: Any, first: Any, weight: float) -> None:
    """Move the backbone of a model so far back to that of another; the head, new at the start, stays."""
    head, start = head_modules(model), first.state_dict()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not any(part in head for part in name.split(".")):
                parameter.lerp_(start[name], weight)
