"""Saving and loading the state of a DeepSpeed engine, and its weights as an ordinary model folder."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ranker.config import TrainConfig
from ranker.training.engine import trained_parameters
from ranker.training.model import load_model, merged

TAG = "state"


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Args:
        step: optimiser steps done. seconds: spent in them, over all restarts. pairs: seen.
        loss: of the last logged window; NaN before the first. measures: of the last measurement on dev queries.
    """

    step: int = 0
    seconds: float = 0.0
    pairs: int = 0
    loss: float = float("nan")
    measures: dict[str, float] = field(default_factory=dict)

    def outcome(self) -> dict[str, Any]:
        """What the manifest keeps."""
        return {
            "steps": self.step,
            "pairs": self.pairs,
            "train_seconds": round(self.seconds, 1),
            "pairs_per_second": round(self.pairs / self.seconds, 1) if self.seconds else 0.0,
            "loss": self.loss,
            "dev": self.measures,
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


def load_state(engine: Any, folder: Path) -> Progress:
    """Put the state into the engine and give the progress back; every worker must call it.

    Raises:
        FileNotFoundError: where the folder holds no such state.
    """
    loaded, client = engine.load_checkpoint(str(folder), tag=TAG, load_module_strict=False)
    if loaded is None:
        raise FileNotFoundError(f"{folder}: no checkpoint in it; delete the run's work folder and start again")
    return Progress(**client["progress"])


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


def write_model(weights: dict[str, torch.Tensor], train: TrainConfig, seed: int, folder: Path) -> None:
    """The trained weights as a model folder that transformers and sentence-transformers open; adapters merged.

    Args:
        weights: as :func:`trained_weights` gives them. train, seed: of the run; they make the same frozen part.
    """
    model, tokenizer = load_model(train, seed)
    _, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected:
        raise ValueError(f"weights that the model {train.model!r} does not have: {unexpected[:5]}")
    merged(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
