"""The ONNX Runtime engine: an exported graph on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ranker import onnx_session
from ranker.scoring.batches import Batch
from ranker.scoring.lanes import Lanes, usable_threads
from ranker.scoring.model_folder import GRAPH_NAMES, NotARerankerError


def open_session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session of ``threads`` threads a run; several threads may run it at once.

    Raises:
        NotARerankerError: where the file is no ONNX graph.
    """
    try:
        return onnx_session.open_session(graph, threads)
    except onnx_session.UnreadableGraphError as error:
        raise NotARerankerError(str(error)) from error


class OnnxEngine:
    """Logits of padded batches through ONNX Runtime.

    Args:
        graph: ONNX file whose inputs are the tokenizer's columns and whose first output is (rows, 1).
        threads: of all lanes. None: those that this process may use.
        lanes: batches at the same time; they share one session and its weights.

    Raises:
        NotARerankerError: where the file is no ONNX graph, or gives other than one logit a row.
    """

    name = "onnx"
    device = "cpu"
    pad_to_multiple_of = 1

    def __init__(self, graph: Path, threads: int | None = None, lanes: int = 1) -> None:
        self.lanes = Lanes(lanes, threads or usable_threads(), torch_threads=False)
        # A run computes in the thread that asks for it and in the session's pool, which the lanes share: so many that
        # each lane has its threads, without a copy of the weights for each.
        self.session = open_session(graph, (self.lanes.threads - 1) * lanes + 1)
        shape = self.session.get_outputs()[0].shape
        if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != 1):
            raise NotARerankerError(f"{graph}: its first output is {shape}; a reranker's is (rows, 1)")
        self.inputs = [node.name for node in self.session.get_inputs()]
        said = self.session.get_modelmeta().custom_metadata_map.get("precision")
        self.precision = said or GRAPH_NAMES.get(graph.name, "fp32")

    def logits(self, batch: Batch) -> np.ndarray:
        """float32 (rows,) of int64 (rows, tokens) columns."""
        (logits, *_) = self.session.run(None, {name: self._column(name, batch) for name in self.inputs})
        return np.asarray(logits, dtype=np.float32).reshape(-1)

    def _column(self, name: str, batch: Batch) -> Any:
        if name in batch:
            return batch[name]
        if name == "token_type_ids":  # a tokenizer that gives none means zeros
            return np.zeros_like(batch["input_ids"])
        raise NotARerankerError(f"the graph reads {name!r}, which the tokenizer does not give: {', '.join(batch)}")
