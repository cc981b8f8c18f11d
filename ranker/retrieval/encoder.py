"""Texts -> vectors, through a sentence-transformers bi-encoder."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ranker.config import Precision
from ranker.machine import available_cpus, cpu_has_bf16
from ranker.precision import lower_precision
from ranker.pretrained import resolve
from ranker.retrieval.engines import GRAPHS, OnnxBody, remembered
from ranker.torch_on_cpu import (
    PAD_TO_MULTIPLE_OF,
    give_back_freed_blocks,
    keep_freed_blocks,
    pack_linear_layers,
    padded_lengths,
)

log = logging.getLogger(__name__)

# Tokens a batch on a CPU, padding included: enough to fill its units, few enough for its caches.
CPU_TOKENS = 2048
# Texts tokenised and sorted by length together.
CHUNK = 2048
# A full text, to bound a batch; models that take longer ones mostly read shorter ones.
FULL_LENGTH = 512
# What a tokenizer gives for padded texts. Other tensors may mean anything.
COLUMNS = {"input_ids", "attention_mask", "token_type_ids"}
# What a model is tried with.
PROBES = ("one", "a text of a few more words")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Encoder:
    """A bi-encoder that gives L2-normalised float32 vectors, so that inner product is cosine.

    Args:
        model: folder, hub id, or name of the bundled one.
        max_length: longest input in tokens; None: what the model folder says.
        precision: arithmetic; auto: see :func:`choose_precision`.
        device: such as ``cpu`` or ``cuda:0``; None: an accelerator when there is one.
        batch_size: texts of full length a batch, more where they are shorter; a CPU takes at most CPU_TOKENS tokens.
        threads: cores for torch in this process; None: leave torch's own choice.
        engine: torch, or onnx for a graph in the model's folder (``onnx/model.onnx``, ``onnx/model_int8.onnx``).
            auto: with precision auto and on a CPU, what ``ranker engines`` measured here to be fastest; else torch.
        safetensors_only: never read weights from a pickle, which can run any code; for a hub id too.

    Raises:
        ranker.pretrained.ModelNotFoundError: where the model's folder is none.
        ValueError: where the graph that was asked for is not there.
    """

    def __init__(
        self,
        model: str,
        max_length: int | None = None,
        precision: Precision = "auto",
        device: str | None = None,
        batch_size: int = 64,
        threads: int | None = None,
        engine: Literal["auto", "torch", "onnx"] = "auto",
        safetensors_only: bool = False,
    ) -> None:
        from sentence_transformers import SentenceTransformer

        if threads is not None:
            torch.set_num_threads(max(1, min(threads, available_cpus())))
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.startswith("cpu"):
            keep_freed_blocks()
        folder = resolve(model)
        self.engine, self.precision = choose_engine(folder, engine, precision, self.device)
        self.batch_size = batch_size
        options: dict[str, Any] = {"dtype": torch.float32}
        if safetensors_only:
            options["use_safetensors"] = True
        self._model: Any = SentenceTransformer(
            folder, device=self.device, trust_remote_code=False, model_kwargs=options
        )
        if self.engine == "onnx":
            # In the place of the torch model, whose weights are let go; pooling and normalising stay.
            graph = Path(folder) / GRAPHS[self.precision]
            cores = min(torch.get_num_threads(), available_cpus())
            body: Any = self._model[0]
            body.model = OnnxBody(graph, cores, body.model.config)
        self._multiple = self._lower() if self.engine == "torch" and self.precision != "fp32" else 1
        if self.device.startswith("cpu"):
            give_back_freed_blocks()
        if max_length is not None:
            limit = self._model.max_seq_length
            self._model.max_seq_length = min(max_length, limit) if limit else max_length
        self.max_length: int | None = self._model.max_seq_length
        # Not every module says how long its vectors are.
        dimension = self._model.get_embedding_dimension() or len(self._model.encode("", convert_to_tensor=True))
        self.dimension = int(dimension)

    def _lower(self) -> int:
        """Bring the model to its precision; a multiple that lengths are padded to."""
        # Without a transformer there is only a table of vectors, which computes nothing.
        if self._model.transformers_model is not None:
            lower_precision(self._model, _DTYPES[self.precision])
        if self.precision != "bf16" or not self.device.startswith("cpu"):
            return 1
        pack_linear_layers(self._model, self._probe)
        return PAD_TO_MULTIPLE_OF

    @property
    def tokenizer(self) -> Any:
        """The model's own tokenizer; None where it has none."""
        return getattr(self._model, "tokenizer", None)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (n, dimension) of queries, with the query prompt of the model where it has one."""
        return self._encode(texts, "query", ("query",))

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors (n, dimension) of documents, with the document prompt of the model where it has one."""
        return self._encode(texts, "document", ("document", "passage", "corpus"))

    @property
    def transformer(self) -> Any:
        """What turns tokens into states: the torch model, or an :class:`OnnxBody`."""
        return self._model[0].model

    def columns(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """The padded int64 columns that the transformer reads of these texts, (n, tokens) each."""
        features = self._model.preprocess(list(texts))
        return {name: value for name, value in features.items() if name in COLUMNS}

    def _encode(self, texts: Sequence[str], task: str, prompts: Sequence[str]) -> NDArray[np.float32]:
        found = np.zeros((len(texts), self.dimension), dtype=np.float32)
        known = self._model.prompts
        prompt = next((known[name] for name in prompts if name in known), known.get(self._model.default_prompt_name))
        with torch.inference_mode():
            for start in range(0, len(texts), CHUNK):
                some = list(texts[start : start + CHUNK])
                # Normalised here in float32: in bf16 the norm itself would be off by a percent.
                vectors = torch.nn.functional.normalize(self._vectors(some, task, prompt), dim=-1)
                found[start : start + len(some)] = vectors.cpu().numpy()
        return found

    def _vectors(self, texts: list[str], task: str, prompt: str | None) -> torch.Tensor:
        """float32 (n, dimension) on the device."""
        features = self._model.preprocess(texts, prompt=prompt, task=task)
        columns = {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
        if not _is_padded(columns, len(texts)):
            options = {"batch_size": self.batch_size, "convert_to_tensor": True, "show_progress_bar": False}
            return self._model.encode(texts, prompt=prompt, task=task, **options).float()
        rest = {name: value for name, value in features.items() if name not in columns}
        found = torch.empty((len(texts), self.dimension), dtype=torch.float32, device=self.device)
        mask = columns["attention_mask"]
        lengths = torch.from_numpy(padded_lengths(mask.sum(1).numpy(), self._multiple, mask.shape[1]))
        for rows in plan_rows(lengths, self._tokens()):
            used = used_columns(mask[rows], int(lengths[rows].max()))
            batch = {name: value[rows, used].to(self.device) for name, value in columns.items()}
            found[rows] = self._model({**batch, **rest}, task=task)["sentence_embedding"][:, : self.dimension].float()
        return found

    def _probe(self) -> torch.Tensor:
        """(4, dimension): some texts through all that encodes queries and all that encodes documents."""
        options = {"convert_to_tensor": True, "show_progress_bar": False}
        return torch.cat([self._model.encode(list(PROBES), task=task, **options) for task in ("query", "document")])

    def _tokens(self) -> int:
        tokens = self.batch_size * min(self.max_length or FULL_LENGTH, FULL_LENGTH)
        return min(tokens, CPU_TOKENS) if self.device.startswith("cpu") else tokens


def _is_padded(columns: Mapping[str, torch.Tensor], count: int) -> bool:
    """Whether these are rows of tokens with a mask, and nothing else."""
    if "attention_mask" not in columns or not set(columns) <= COLUMNS:
        return False
    shape = columns["attention_mask"].shape
    return len(shape) == 2 and shape[0] == count and all(column.shape == shape for column in columns.values())


def plan_rows(lengths: torch.Tensor, tokens: int) -> Iterator[torch.Tensor]:
    """Rows of each batch, longest first, so that rows times the longest stays within ``tokens``; at least one row."""
    order = torch.argsort(lengths, descending=True, stable=True)
    start = 0
    while start < len(order):
        end = start + max(1, tokens // max(1, int(lengths[order[start]])))
        yield order[start:end]
        start = end


def used_columns(mask: torch.Tensor, wanted: int = 1) -> slice:
    """The columns in which some row has a token, on whichever side the padding is; one where none has.

    Padding is kept up to ``wanted`` columns, where there is so much.
    """
    used, width = mask.any(0).nonzero(), mask.shape[1]
    first, end = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
    missing = max(0, wanted - (end - first))
    after = min(missing, width - end)
    return slice(max(0, first - missing + after), end + after)


def choose_engine(folder: str, engine: str, precision: str, device: str) -> tuple[str, str]:
    """(engine, precision) of what was asked for; see :class:`Encoder`.

    Raises:
        ValueError: where the graph that was asked for is not there.
    """
    on_cpu = device.startswith("cpu")
    if engine == "auto" and precision == "auto" and on_cpu and (known := remembered(folder)) is not None:
        return known
    if engine != "onnx":
        return "torch", choose_precision(precision, device)  # type: ignore[arg-type]
    kind = "fp32" if precision == "auto" else precision
    if kind not in GRAPHS or not (Path(folder) / GRAPHS[kind]).is_file() or not on_cpu:
        raise ValueError(
            f"engine 'onnx': {folder} has no graph in {kind} for {device}; "
            f"`ranker engines {folder} --export` writes {' and '.join(GRAPHS.values())}"
        )
    return "onnx", kind


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
