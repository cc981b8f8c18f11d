"""How a bi-encoder runs on this machine: torch, or a graph beside its weights where that was measured to be better.

``ranker engines BI_ENCODER --export`` writes the graphs, measures and keeps the decision; an :class:`Encoder` with
``auto`` follows it.
"""

import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from ranker import onnx_session
from ranker.machine import available_cpus, processor
from ranker.manifest import fingerprint, installed_packages, write_json

log = logging.getLogger(__name__)

# Hidden, so that no fingerprint of the model's folder changes.
FILE = ".encoding.json"
GRAPHS = {"fp32": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}
OUTPUT = "last_hidden_state"
# Smallest cosine with torch fp32 of the same text that a way may have. Neighbours differ by less than 0.01 at times.
MIN_COSINE = 0.995
ROUNDS = 3


class GraphError(ValueError):
    """An ONNX file that is no graph of a bi-encoder."""


class OnnxBody(nn.Module):
    """The transformer of a bi-encoder as a graph: called as the torch model is, with the states of all tokens.

    Args:
        graph: ONNX file that :mod:`ranker.optimization.encoder_export` wrote. threads: of a batch.
        config: of the torch model, which sentence-transformers asks for.

    Raises:
        GraphError: where ONNX Runtime cannot load it.
    """

    def __init__(self, graph: Path, threads: int, config: Any) -> None:
        super().__init__()
        self.config = config
        try:
            self.session = onnx_session.open_session(graph, threads)
        except onnx_session.UnreadableGraphError as error:
            raise GraphError(str(error)) from error
        self.names = [node.name for node in self.session.get_inputs()]
        if [node.name for node in self.session.get_outputs()][:1] != [OUTPUT]:
            raise GraphError(f"{graph}: its first output is not {OUTPUT}; export the model again")

    def forward(self, **columns: Any) -> BaseModelOutput:
        """``last_hidden_state`` float32 (rows, tokens, width) of int64 (rows, tokens) columns."""
        zeros = np.zeros_like(columns["input_ids"].numpy())
        feed = {name: columns[name].numpy() if name in columns else zeros for name in self.names}
        return BaseModelOutput(last_hidden_state=torch.from_numpy(self.session.run(None, feed)[0]))


@dataclass(frozen=True)
class EncoderTrial:
    """What was measured of one way: texts a second, and the smallest cosine with torch fp32."""

    engine: str
    precision: str
    texts_per_second: float
    smallest_cosine: float

    @property
    def allowed(self) -> bool:
        """Whether its vectors may stand for fp32's."""
        return self.smallest_cosine >= MIN_COSINE


def remembered(folder: str | Path) -> tuple[str, str] | None:
    """(engine, precision) that was decided for this model on this machine; None where nothing was."""
    try:
        chosen = json.loads((Path(folder) / FILE).read_text("utf-8"))[machine_key()]["chosen"]
        engine, precision = chosen["engine"], chosen["precision"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    there = engine == "torch" or (Path(folder) / GRAPHS.get(precision, "")).is_file()
    return (engine, precision) if there else None


def machine_key() -> str:
    """Names the machine and the versions that a decision holds for."""
    return fingerprint([processor(), available_cpus(), installed_packages(("torch", "onnxruntime", "transformers"))])


def decide(folder: Path, texts: Sequence[str], encoders: dict[tuple[str, str], Callable[..., Any]]) -> dict[str, Any]:
    """Measure the ways on these texts, in turns, and keep the fastest that is faithful in the folder.

    Args:
        encoders: (engine, precision) -> encode(texts) -> float32 (n, dimension), normalised; the exact one first.
    """
    vectors: dict[tuple[str, str], NDArray[np.float32]] = {way: encode(texts) for way, encode in encoders.items()}
    exact = next(iter(vectors.values()))
    seconds: dict[tuple[str, str], list[float]] = {way: [] for way in encoders}
    for _ in range(ROUNDS):
        for way, encode in encoders.items():
            begin = time.perf_counter()
            encode(texts)
            seconds[way].append(time.perf_counter() - begin)
    trials = [
        EncoderTrial(*way, len(texts) / statistics.median(seconds[way]), float((vectors[way] * exact).sum(1).min()))
        for way in encoders
    ]
    chosen = max((trial for trial in trials if trial.allowed), key=lambda trial: trial.texts_per_second)
    for trial in trials:
        verdict = "chosen" if trial is chosen else "slower" if trial.allowed else f"below {MIN_COSINE}: not allowed"
        log.info("  %s %s: %.1f texts/s, smallest cosine with fp32 %.5f; %s", trial.engine, trial.precision,
                 trial.texts_per_second, trial.smallest_cosine, verdict)  # fmt: skip
    decision = {"chosen": asdict(chosen), "trials": [asdict(trial) for trial in trials], "texts": len(texts)}
    _keep(folder / FILE, decision)
    return decision


def _keep(place: Path, decision: dict[str, Any]) -> None:
    try:
        known = json.loads(place.read_text("utf-8")) if place.is_file() else {}
    except ValueError:
        known = {}
    if os.access(place.parent, os.W_OK):
        write_json(place, {**known, machine_key(): decision})
    else:
        log.warning("%s: cannot be written, so the decision is not kept; copy the model to a folder of your own", place)
