"""One scorer for every engine: pairs in, float32 logits out, in the order given."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from ranker.config import ScoringConfig
from ranker.scoring.batches import Batch, pad_batch, plan_batches
from ranker.scoring.model_folder import ModelFiles, find_model, read_config, read_tokenizer
from ranker.scoring.pairs import encode_pairs, longest_pair

log = logging.getLogger(__name__)

# Pairs tokenised and sorted together: enough for batches of even length, little enough to hold in memory.
WINDOW = 4096


class Engine(Protocol):
    """What runs the network."""

    name: str
    precision: str
    device: str

    def logits(self, batch: Batch) -> np.ndarray:
        """float32 (rows,) of int64 (rows, tokens) columns."""
        ...


class Scorer:
    """Relevance logits of (query, document) pairs.

    Args:
        engine: runs the network. tokenizer: the model's own.
        max_length: longest pair in tokens; the longer side is cut first.
        batch_tokens: padded tokens a batch.
    """

    def __init__(
        self, engine: Engine, tokenizer: PreTrainedTokenizerBase, max_length: int, batch_tokens: int = 8192
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.batch_tokens = batch_tokens

    def __repr__(self) -> str:
        engine = self.engine
        return f"Scorer({engine.name}, {engine.precision}, {engine.device}, max_length={self.max_length})"

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """float32 logits (n,), in the order of ``pairs``; higher is more relevant. Equal pairs get equal logits.

        Raises:
            TypeError: naming the first pair that is not two strings.
            FloatingPointError: where a logit is not finite, naming the pair.
        """
        different, back = _different(pairs)
        found = [self._score_window(different[start : start + WINDOW]) for start in range(0, len(different), WINDOW)]
        scores = np.concatenate([np.zeros(0, dtype=np.float32), *found])[back]
        if not np.isfinite(scores).all():
            first = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise FloatingPointError(
                f"pair {first} got the logit {scores[first]} in {self.engine.precision}; score with precision fp32"
            )
        return scores

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None) -> list[tuple[int, float]]:
        """(position in ``documents``, logit), best first; ties keep the order given; ``top_k`` None keeps all."""
        scores = self.score([(query, document) for document in documents])
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [(int(position), float(scores[position])) for position in order]

    def _score_window(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        encoded = encode_pairs(self.tokenizer, pairs, self.max_length)
        columns = {name: encoded[name] for name in encoded}
        tokenizer = self.tokenizer
        fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
        scores = np.empty(len(pairs), dtype=np.float32)
        for rows in plan_batches([len(ids) for ids in columns["input_ids"]], self.batch_tokens):
            scores[rows] = self.engine.logits(pad_batch(columns, rows, fill, tokenizer.padding_side))
        return scores


def load_scorer(
    model: str | Path,
    config: ScoringConfig = ScoringConfig(),
    device: str | None = None,
) -> Scorer:
    """The scorer of a model folder, a hub id, an exported folder or a ``NAME.onnx`` file.

    Args:
        model: LoRA adapter folders are merged into their base.
        config: engine, precision, budget, length.
        device: as torch names it. None: the first GPU, else the CPU.

    Raises:
        ModelNotFoundError: no such folder, or no model in it.
        NotARerankerError: no trained head, more than one label, weights that are not finite, a broken graph.
        ValueError: a precision, device or length that cannot be.
    """
    files = find_model(model)
    model_config = read_config(files)
    tokenizer = read_tokenizer(files)
    max_length = longest_pair(tokenizer, model_config, config.max_length)
    scorer = Scorer(_load_engine(files, config, device), tokenizer, max_length, config.batch_tokens)
    log.info("%s: %r", model, scorer)
    return scorer


def _different(pairs: Sequence[tuple[str, str]]) -> tuple[Sequence[tuple[str, str]], np.ndarray]:
    """Each pair once, and the place of every given one among them.

    In another row of a batch the same pair may get a logit that is off by its last bit, and equal documents would
    change places.
    """
    try:
        places: dict[tuple[str, str], int] = {}
        back = [places.setdefault(pair, len(places)) for pair in pairs]
    except TypeError:  # no tuples of strings: said where they are read
        return pairs, np.arange(len(pairs))
    return list(places), np.array(back, dtype=np.int64)


def probabilities(logits: np.ndarray | Sequence[float]) -> np.ndarray:
    """The sigmoid of logits, float64, so that logits which differ in float32 stay apart over a wide range."""
    values = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(values))  # never overflows
    return np.where(values >= 0, 1.0, small) / (1.0 + small)


def choose_engine(files: ModelFiles, wanted: str) -> str:
    """``torch`` or ``onnx``; auto is ONNX Runtime for an exported folder and torch otherwise.

    Raises:
        ValueError: where the folder lacks what the engine asked for needs.
    """
    available = {"torch": files.weights, "onnx": files.graph is not None}
    if wanted == "auto":
        return "torch" if files.weights else "onnx"
    if not available[wanted]:
        lack = "model.onnx; export it first" if wanted == "onnx" else "torch weights (*.safetensors)"
        raise ValueError(f"engine {wanted!r}: {files.name} has no {lack}")
    return wanted


def _load_engine(files: ModelFiles, config: ScoringConfig, device: str | None) -> Engine:
    if choose_engine(files, config.engine) == "torch":
        from ranker.scoring.torch_engine import load_torch_engine

        return load_torch_engine(files, config.precision, device)
    from ranker.scoring.onnx_engine import OnnxEngine

    if files.graph is None:
        raise ValueError(f"{files.name}: no model.onnx")
    return OnnxEngine(files.graph)
