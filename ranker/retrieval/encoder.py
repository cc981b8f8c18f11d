"""Texts -> vectors, through a sentence-transformers bi-encoder."""

import logging
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ranker.config import Precision
from ranker.machine import available_cpus, cpu_has_bf16
from ranker.pretrained import resolve

log = logging.getLogger(__name__)

# On a CPU a batch of 16 fills the matrix units, and a smaller batch is padded less: on texts of 10 to 256 tokens it
# took a fifth less time than one of 64.
CPU_BATCH = 16
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Encoder:
    """A bi-encoder that gives L2-normalised float32 vectors, so that inner product is cosine.

    Args:
        model: folder, hub id, or name of the bundled one.
        max_length: longest input in tokens; None: what the model folder says.
        precision: arithmetic; auto: see :func:`choose_precision`.
        device: such as ``cpu`` or ``cuda:0``; None: an accelerator when there is one.
        batch_size: texts a batch, of like length; a CPU takes at most CPU_BATCH at once.
        threads: cores for torch in this process; None: leave torch's own choice.

    Raises:
        ranker.pretrained.ModelNotFoundError: where the model's folder is none.
    """

    def __init__(
        self,
        model: str,
        max_length: int | None = None,
        precision: Precision = "auto",
        device: str | None = None,
        batch_size: int = 64,
        threads: int | None = None,
    ) -> None:
        from sentence_transformers import SentenceTransformer

        if threads is not None:
            torch.set_num_threads(max(1, min(threads, available_cpus())))
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = choose_precision(precision, self.device)
        self.batch_size = min(batch_size, CPU_BATCH) if self.device.startswith("cpu") else batch_size
        self._model: Any = SentenceTransformer(
            resolve(model),
            device=self.device,
            trust_remote_code=False,
            model_kwargs={"dtype": _DTYPES[self.precision]},
        )
        if max_length is not None:
            limit = self._model.max_seq_length
            self._model.max_seq_length = min(max_length, limit) if limit else max_length
        self.max_length: int | None = self._model.max_seq_length
        self.dimension: int = int(self._model.get_embedding_dimension() or 0)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (n, dimension) of queries, with the query prompt of the model where it has one."""
        return self._encode(self._model.encode_query, texts)

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (n, dimension) of documents, with the document prompt of the model where it has one."""
        return self._encode(self._model.encode_document, texts)

    def _encode(self, method: Any, texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        with torch.inference_mode():
            # Tensors, since NumPy has no bf16; sentence-transformers sorts the texts by length by itself.
            vectors = method(
                list(texts), batch_size=self.batch_size, convert_to_tensor=True, show_progress_bar=False
            ).float()
            # Normalised here in float32: in bf16 the norm itself would be off by a percent.
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return np.ascontiguousarray(vectors.cpu().numpy(), dtype=np.float32)


def choose_precision(precision: Precision, device: str) -> str:
    """``fp32``, ``bf16`` or ``fp16``: what was asked for; auto: bf16 where the device computes it, fp32 elsewhere.

    Raises:
        ValueError: on fp16 on a CPU, which emulates it, and on a name that is none.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r} is none of {', '.join(get_args(Precision))}")
    on_cpu = device.startswith("cpu")
    if precision == "fp16" and on_cpu:
        raise ValueError("precision 'fp16' on a CPU is emulated and slow; use 'auto', 'bf16' or 'fp32'")
    if precision != "auto":
        return precision
    if on_cpu:
        return "bf16" if cpu_has_bf16() else "fp32"
    if not device.startswith("cuda"):
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
