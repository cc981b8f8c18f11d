"""Our own wire format: ``POST /search`` retrieves and reranks in one call."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, Field

from ranker.scoring.rerank import combine
from ranker.scoring.scorer import probabilities
from ranker.serving.calls import Neighbour
from ranker.serving.dialects.base import Query, Request


class SearchRequest(Request):
    """``{"query": ...}`` and how much of the answer is wanted."""

    query: Query = Field(description="What to look for.")
    top_k: int = Field(10, ge=1, description="Results wanted.")
    num_candidates: int | None = Field(None, ge=1, description="Neighbours that are reranked; null: the service's own.")
    return_documents: bool = Field(True, description="Whether results hold their text.")


class SearchResult(BaseModel):
    """One document in both orders. ``score`` is in 0-1; ``retrieval_score`` is the retriever's similarity."""

    doc_id: str
    rank: int
    score: float
    retrieval_rank: int
    retrieval_score: float
    text: str | None = None

    def without_text(self) -> "SearchResult":
        """The same for a caller who has the documents."""
        return self.model_copy(update={"text": None})


class SearchResponse(BaseModel):
    """Results best first; ``times`` in seconds."""

    id: str
    model: str
    results: list[SearchResult]
    times: dict[str, float]


def merge(found: Sequence[Neighbour], logits: Sequence[float], interpolation: float = 0.0) -> list[SearchResult]:
    """The found documents in the reranker's order; with an interpolation above 0 in that of the mixed score.

    The same rule as :func:`ranker.scoring.rerank.rerank_run`, so that a service ranks as it was evaluated.
    """
    values = np.asarray(logits, dtype=np.float64)
    mixed = combine(values, np.array([neighbour.score for neighbour in found], dtype=np.float64), interpolation)
    scores = probabilities(values) if interpolation == 0.0 else mixed
    order = np.argsort(-mixed, kind="stable")
    return [
        SearchResult(
            doc_id=found[place].doc_id,
            rank=position + 1,
            score=float(scores[place]),
            retrieval_rank=int(place) + 1,
            retrieval_score=float(found[place].score),
            text=found[place].text,
        )
        for position, place in enumerate(order)
    ]
