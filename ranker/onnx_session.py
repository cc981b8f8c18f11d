"""How a graph is opened with ONNX Runtime, for cross-encoders and bi-encoders alike."""

from pathlib import Path

import onnxruntime

# ONNX Runtime's own logger: 3 is errors, which also reach the caller as exceptions.
ERRORS_ONLY = 3


class UnreadableGraphError(ValueError):
    """An ONNX file that ONNX Runtime does not take."""


def open_session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session of ``threads`` threads a run; several threads may run it at once.

    Raises:
        UnreadableGraphError: where the file is no ONNX graph.
    """
    options = onnxruntime.SessionOptions()
    # The runtime counts the machine's cores, not the container's.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    # Threads that spin while they wait take the cores of whoever shares them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions have no common class
        raise UnreadableGraphError(f"{graph}: ONNX Runtime cannot load it; export the model again: {error}") from error
