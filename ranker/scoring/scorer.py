"""One scorer for every engine: pairs in, float32 logits out, in the order given."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from ranker.config import ScoringConfig
from ranker.scoring.batches import Batch, pad_batch, share_batches
from ranker.scoring.cascade import Cascade, in_two_passes
from ranker.scoring.lanes import Lanes
from ranker.scoring.memory import LogitMemory, row_keys
from ranker.scoring.model_folder import find_model, read_config, read_tokenizer
from ranker.scoring.pairs import encode_passages, longest_pair
from ranker.torch_on_cpu import padded_lengths

log = logging.getLogger(__name__)

# Pairs tokenised and sorted together: enough for batches of even length, little enough to hold in memory.
WINDOW = 4096
# Tokens a batch on a CPU, padding included: enough to fill its units, few enough for its caches.
CPU_TOKENS = 2048
Pair = tuple[str, str]
Columns = Mapping[str, Sequence[Sequence[int]]]


class Engine(Protocol):
    """What runs the network."""

    name: str
    precision: str
    device: str
    lanes: Lanes
    pad_to_multiple_of: int

    def logits(self, batch: Batch) -> np.ndarray:
        """float32 (rows,) of int64 (rows, tokens) columns, of as many tokens as the engine is fastest at."""
        ...


class Scorer:
    """Relevance logits of (query, document) pairs.

    Args:
        engine: runs the network. tokenizer: the model's own.
        max_length: longest pair in tokens; the longer side is cut first.
        batch_tokens: padded tokens a batch; a CPU takes at most CPU_TOKENS at once.
        max_passages: passages of a document that are read; its logit is the best one's. 1: the document is cut.
        cascade: a short look at all documents of a query before the whole one at the best. None: no short look.
        cache_pairs: logits that are remembered. 0: none.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        batch_tokens: int = 8192,
        *,
        max_passages: int = 1,
        cascade: Cascade | None = None,
        cache_pairs: int = 0,
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.max_passages = max_passages
        self.cascade = cascade
        self._memory = LogitMemory(cache_pairs)

    def __repr__(self) -> str:
        engine = self.engine
        shape = f"{engine.lanes.lanes}x{engine.lanes.threads} threads, max_length={self.max_length}"
        return f"Scorer({engine.name}, {engine.precision}, {engine.device}, {shape})"

    def score(self, pairs: Sequence[Pair]) -> np.ndarray:
        """float32 logits (n,), in the order of ``pairs``; higher is more relevant. Equal pairs get equal logits.

        With a cascade, all pairs of one query in a call are one list, and only the order of those below its cut is
        what their numbers say.

        Raises:
            TypeError: naming the first pair that is not two strings.
            FloatingPointError: where a logit is not finite, naming the pair.
        """
        if self.cascade is not None:
            return in_two_passes(self.cascade, pairs, self._score)
        return self._score(pairs)

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None) -> list[tuple[int, float]]:
        """(position in ``documents``, logit), best first; ties keep the order given; ``top_k`` None keeps all."""
        scores = self.score([(query, document) for document in documents])
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [(int(position), float(scores[position])) for position in order]

    def score_encoded(self, columns: Columns, lanes: int | None = None) -> np.ndarray:
        """float32 logits (n,) of rows of token ids, as :func:`ranker.scoring.pairs.encode_pairs` gives them.

        Several threads may call it, each for some of the engine's ``lanes``; None: for all of them.

        In another row of a batch the same ids may get a logit that is off by its last bit, and equal documents would
        change places: equal rows are computed once.
        """
        keys = row_keys(columns)
        known = self._memory.recall(keys)
        places = {key: row for row, key in reversed(list(enumerate(keys))) if key not in known}
        missing = sorted(places.values())
        found = self._compute(columns, missing, lanes or self.engine.lanes.lanes)
        fresh = {keys[row]: float(logit) for row, logit in zip(missing, found, strict=True)}
        self._memory.keep(fresh)
        known.update(fresh)
        return np.array([known[key] for key in keys], dtype=np.float32)

    def score_passages(self, columns: Columns, owners: Sequence[int], lanes: int | None = None) -> np.ndarray:
        """float32 logits (pairs,) of what :func:`ranker.scoring.pairs.encode_passages` made of them.

        ``lanes`` as in :meth:`score_encoded`.

        Raises:
            FloatingPointError: where a logit is not finite, naming the pair.
        """
        return self._finite(best_passages(self.score_encoded(columns, lanes), owners))

    def _score(self, pairs: Sequence[Pair], tokens: int | None = None) -> np.ndarray:
        max_length = min(tokens or self.max_length, self.max_length)
        passages = 1 if tokens else self.max_passages
        scores = np.empty(len(pairs), dtype=np.float32)
        for start in range(0, len(pairs), WINDOW):
            some = pairs[start : start + WINDOW]
            columns, owners, _ = encode_passages(self.tokenizer, some, max_length, passages)
            scores[start : start + len(some)] = best_passages(self.score_encoded(columns), owners)
        return self._finite(scores)

    def _finite(self, scores: np.ndarray) -> np.ndarray:
        if not np.isfinite(scores).all():
            first = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise FloatingPointError(
                f"pair {first} got the logit {scores[first]} in {self.engine.precision}; score with precision fp32"
            )
        return scores

    def _compute(self, columns: Columns, chosen: list[int], lanes: int) -> np.ndarray:
        """float32 logits of the chosen rows, in batches of rows of like length."""
        tokenizer, engine = self.tokenizer, self.engine
        fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
        budget = min(self.batch_tokens, CPU_TOKENS) if engine.device.startswith("cpu") else self.batch_tokens
        exact = [len(columns["input_ids"][row]) for row in chosen]
        lengths = padded_lengths(exact, engine.pad_to_multiple_of, self.max_length)
        plan = share_batches(lengths, budget, lanes)
        rows = np.array(chosen, dtype=np.int64)

        def run(places: np.ndarray) -> np.ndarray:
            tokens = int(lengths[places].max())
            return engine.logits(pad_batch(columns, rows[places], fill, tokenizer.padding_side, tokens))

        scores = np.empty(len(chosen), dtype=np.float32)
        for places, logits in zip(plan, engine.lanes.map(run, plan), strict=True):
            scores[places] = logits
        return scores


def load_scorer(
    model: str | Path,
    config: ScoringConfig = ScoringConfig(),
    device: str | None = None,
) -> Scorer:
    """The scorer of a model folder, a hub id, an exported folder or a ``NAME.onnx`` file.

    With engine and precision ``auto`` the ways that this machine has to run the model are measured at the first
    start (:mod:`ranker.scoring.trials`), and what was found is kept beside the model for the next.

    Args:
        model: LoRA adapter folders are merged into their base.
        config: engine, precision, budget, length.
        device: as torch names it. None: the first GPU, else the CPU.

    Raises:
        ModelNotFoundError: no such folder, or no model in it.
        NotARerankerError: no trained head, more than one label, weights that are not finite, a broken graph.
        ValueError: a precision, device or length that cannot be.
    """
    from ranker.scoring.settle import settled_engine

    files = find_model(model)
    model_config = read_config(files)
    tokenizer = read_tokenizer(files)
    max_length = longest_pair(tokenizer, model_config, config.max_length)
    scorer = Scorer(
        settled_engine(files, tokenizer, max_length, config, device),
        tokenizer,
        max_length,
        config.batch_tokens,
        max_passages=config.max_passages if config.passage_score == "max" else 1,
        cascade=Cascade(config.cascade_tokens, config.cascade_keep) if config.cascade_tokens else None,
        cache_pairs=config.cache_pairs,
    )
    log.info("%s: %r", model, scorer)
    return scorer


def best_passages(logits: Sequence[float] | np.ndarray, owners: Sequence[int]) -> np.ndarray:
    """Each document's best logit, (documents,), of its passages' (n,); ``owners`` rises by 0 or 1 from 0."""
    if not len(owners):
        return np.zeros(0, dtype=np.float32)
    return np.maximum.reduceat(np.asarray(logits, dtype=np.float32), np.flatnonzero(np.diff(owners, prepend=-1)))


def probabilities(logits: np.ndarray | Sequence[float]) -> np.ndarray:
    """The sigmoid of logits, float64, so that logits which differ in float32 stay apart over a wide range."""
    values = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(values))  # never overflows
    return np.where(values >= 0, 1.0, small) / (1.0 + small)
