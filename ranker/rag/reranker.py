"""The second stage alone: a cross-encoder, here or behind an address, that orders documents."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from ranker.config import ScoringConfig
from ranker.rag.remote import RemoteScorer, is_address
from ranker.scoring.rerank import PairScorer
from ranker.scoring.scorer import load_scorer, probabilities


class Reranker:
    """Orders texts by relevance; may be asked from several threads.

    Args:
        model: cross-encoder folder (torch, LoRA or exported), hub id, or the ``http://`` address of a service.
        scoring: engine, precision and length, of a model that runs here. device: as torch names it.
        api_key: of a service; None: the environment's RANKER_API_KEY.
        raw_scores: give logits; otherwise their sigmoid, 0 to 1.

    Raises:
        ModelNotFoundError, NotARerankerError: see ``load_scorer``. RemoteRerankerError: a service that is not there.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        scoring: ScoringConfig | None = None,
        device: str | None = None,
        api_key: str | None = None,
        raw_scores: bool = False,
    ) -> None:
        self.model, self.raw_scores = str(model), raw_scores
        self.scorer: PairScorer
        if is_address(model):
            self.scorer = RemoteScorer(str(model), api_key)
        else:
            self.scorer = load_scorer(model, scoring or ScoringConfig(), device)
        # A tokenizer is not made for several threads, and a network has the cores for one call at a time; a service may
        # be asked by all at once.
        self._lock: AbstractContextManager[Any] = nullcontext() if is_address(model) else threading.Lock()

    def scores(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        """float64 (n,), as ``raw_scores`` says."""
        if not pairs:
            return np.zeros(0)
        with self._lock:
            logits = self.scorer.score(pairs)
        return np.asarray(logits, dtype=np.float64) if self.raw_scores else probabilities(logits)

    def rank(self, query: str, texts: Sequence[str], top_k: int | None = None) -> list[tuple[int, float]]:
        """(position in ``texts``, score), best first; ties keep the order given; ``top_k`` None keeps all."""
        scores = self.scores([(query, text) for text in texts])
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [(int(place), float(scores[place])) for place in order]
