"""The ONNX Runtime engine: an exported graph on the CPU (or a GPU build of the runtime)."""

from pathlib import Path

import numpy as np
import onnxruntime

from ranker.machine import available_cpus
from ranker.scoring.batches import Batch
from ranker.scoring.model_folder import NotARerankerError

# ONNX Runtime's own logger: 3 is errors, which also reach the caller as exceptions.
ERRORS_ONLY = 3


class OnnxEngine:
    """Logits of padded batches through ONNX Runtime.

    Args:
        graph: ONNX file whose inputs are the tokenizer's columns and whose first output is (rows, 1).
        threads: of one batch. None: the cores that this process may use.

    Raises:
        NotARerankerError: where the file is no ONNX graph, or gives other than one logit a row.
    """

    name = "onnx"
    device = "cpu"

    def __init__(self, graph: Path, threads: int | None = None) -> None:
        options = onnxruntime.SessionOptions()
        # The runtime counts the machine's cores, not the container's.
        options.intra_op_num_threads = threads or available_cpus()
        options.inter_op_num_threads = 1
        options.log_severity_level = ERRORS_ONLY
        try:
            self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's exceptions have no common class
            raise NotARerankerError(f"{graph}: ONNX Runtime cannot load it; export the model again: {error}") from error
        shape = self.session.get_outputs()[0].shape
        if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != 1):
            raise NotARerankerError(f"{graph}: its first output is {shape}; a reranker's is (rows, 1)")
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.precision = self.session.get_modelmeta().custom_metadata_map.get("precision", "fp32")

    def logits(self, batch: Batch) -> np.ndarray:
        """float32 (rows,) of int64 (rows, tokens) columns."""
        (logits, *_) = self.session.run(None, {name: batch[name] for name in self.inputs})
        return np.asarray(logits, dtype=np.float32).reshape(-1)
