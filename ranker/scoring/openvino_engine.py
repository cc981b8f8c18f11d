"""The OpenVINO engine, an extra: the same ONNX graph, compiled for Intel and other CPUs."""

import threading
from pathlib import Path
from typing import Any

import numpy as np

from ranker.scoring.batches import Batch
from ranker.scoring.lanes import Lanes, usable_threads
from ranker.scoring.model_folder import NotARerankerError
from ranker.torch_on_cpu import PAD_TO_MULTIPLE_OF

HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenvinoEngine:
    """Logits of padded batches through OpenVINO.

    Args:
        graph: ONNX file whose inputs are the tokenizer's columns and whose first output is (rows, 1).
        precision: ``fp32`` or ``bf16`` for the arithmetic, which OpenVINO would else choose by itself.
        threads, lanes: as in :class:`ranker.scoring.onnx_engine.OnnxEngine`; a lane is one of its streams.

    Raises:
        ImportError: where it is not installed, saying how.
        NotARerankerError: where the file is no ONNX graph.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, graph: Path, precision: str = "fp32", threads: int | None = None, lanes: int = 1) -> None:
        try:
            import openvino
        except ImportError as error:
            raise ImportError("engine 'openvino' is an extra: pip install 'ranker[openvino]'") from error
        self.precision = precision
        self.pad_to_multiple_of = PAD_TO_MULTIPLE_OF if precision == "bf16" else 1
        self.lanes = Lanes(lanes, threads or usable_threads(), torch_threads=False)
        options = {
            "INFERENCE_NUM_THREADS": self.lanes.threads * lanes,
            "NUM_STREAMS": lanes,
            "INFERENCE_PRECISION_HINT": HINTS.get(precision, "f32"),
        }
        try:
            self._model: Any = openvino.Core().compile_model(str(graph), "CPU", options)
        except RuntimeError as error:
            raise NotARerankerError(f"{graph}: OpenVINO cannot load it; export the model again: {error}") from error
        self.inputs = [port.get_any_name() for port in self._model.inputs]
        self._requests = threading.local()

    def logits(self, batch: Batch) -> np.ndarray:
        """float32 (rows,) of int64 (rows, tokens) columns."""
        if not hasattr(self._requests, "own"):  # one for each lane's thread
            self._requests.own = self._model.create_infer_request()
        found = self._requests.own.infer({name: batch[name] for name in self.inputs})
        return np.array(found[self._model.output(0)], dtype=np.float32).reshape(-1)
