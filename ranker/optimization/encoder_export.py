"""A bi-encoder's transformer as graphs beside its weights, checked against torch, and the fastest way to encode."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ranker.machine import cpu_has_bf16
from ranker.retrieval.encoder import Encoder
from ranker.retrieval.engines import GRAPHS, MIN_COSINE, OUTPUT, decide
from ranker.scoring import graph
from ranker.scoring.batches import Batch
from ranker.scoring.samples import builtin_pairs

log = logging.getLogger(__name__)


def export_encoder(folder: str | Path) -> dict[str, str]:
    """Write ``onnx/model.onnx`` and ``onnx/model_int8.onnx`` into a bi-encoder's folder; precision -> file.

    Raises:
        ValueError: where the folder is none that can be written.
    """
    place = Path(folder)
    if not place.is_dir():
        raise ValueError(f"{folder}: is not a local folder; save the model into one first")
    encoder = Encoder(str(folder), precision="fp32", device="cpu", engine="torch")
    body = encoder.transformer
    (place / "onnx").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=place) as temporary:
        work = Path(temporary)
        graph.write_graph(body, _example(encoder), work / "fp32.onnx", output=OUTPUT)
        graph.write_dynamic_int8(work / "fp32.onnx", work / "int8.onnx")
        for precision, name in GRAPHS.items():
            graph.mark(work / f"{precision}.onnx", precision)
            (work / f"{precision}.onnx").replace(place / name)
    return {precision: str(place / name) for precision, name in GRAPHS.items()}


def settle_encoder(folder: str | Path, texts: Sequence[str] = (), max_length: int | None = None) -> dict[str, Any]:
    """Measure the ways to encode with this model on this machine and keep the fastest whose vectors are faithful.

    A way that cannot run, such as a broken graph, is among ``failures`` with the reason, unless it is torch fp32.

    Args:
        texts: the user's own; without any, the built-in ones. A way whose smallest cosine with torch fp32 is below
            MIN_COSINE is never chosen.
        max_length: longest text in tokens. None: what the model says.
    """
    ways = [("torch", "fp32"), *([("torch", "bf16")] if cpu_has_bf16() else [])]
    ways += [("onnx", precision) for precision, name in GRAPHS.items() if (Path(folder) / name).is_file()]
    chosen = list(texts) or list(dict.fromkeys(text for pair in builtin_pairs() for text in pair))
    encoders: dict[tuple[str, str], Callable[..., Any]] = {}
    failures: list[dict[str, str]] = []
    for engine, precision in ways:
        make: Any = partial(Encoder, str(folder), max_length, device="cpu")
        try:
            encode = make(precision=precision, engine=engine).encode_documents
            encode(chosen[:2])
        except Exception as error:  # an engine's exceptions have no common class
            if not encoders:
                raise
            log.warning("  %s %s: cannot run: %s", engine, precision, error)
            failures.append({"engine": engine, "precision": precision, "failure": f"cannot run: {error}"})
            continue
        encoders[engine, precision] = encode
    log.info("%s: measuring %d ways to encode %d texts; a cosine below %s is not allowed", folder, len(encoders),
             len(chosen), MIN_COSINE)  # fmt: skip
    return {**decide(Path(folder), chosen, encoders), "failures": failures}


def _example(encoder: Encoder) -> Batch:
    columns = encoder.columns(["how do plants make food", "Paris is the capital of France."])
    return {name: np.ascontiguousarray(value.numpy()) for name, value in columns.items()}
