"""Our own wire format: ``POST /search`` retrieves and reranks in one call."""

import time
from collections.abc import Sequence

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from ranker.scoring.rerank import combine
from ranker.scoring.scorer import probabilities
from ranker.serving.calls import Neighbour
from ranker.serving.dialects.base import Query
from ranker.serving.dialects.base import Request as Body
from ranker.serving.errors import request_id_of
from ranker.serving.service import check_documents, check_query, largest, service_of
from ranker.serving.trace import current

router = APIRouter()
TOP_K = 10


class SearchRequest(Body):
    """``{"query": ...}`` and how much of the answer is wanted."""

    query: Query = Field(description="What to look for.")
    top_k: int | None = Field(None, ge=1, description="Results wanted; null: 10.")
    num_candidates: int | None = Field(None, ge=1, description="Neighbours that are reranked; null: the service's own.")
    return_documents: bool | None = Field(None, description="Whether results hold their text; null: they do.")
    model: str | None = Field(None, description="Name of the reranker; null: the first.")


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


@router.post("/search", tags=["search"])
async def search(body: SearchRequest, request: Request) -> SearchResponse:
    """Retrieve the nearest documents of the index and rerank them; both ranks and scores come back."""
    service = service_of(request)
    current().dialect, current().model = "search", service.model
    top_k = body.top_k or min(TOP_K, largest(request))
    num_candidates = body.num_candidates or max(min(service.limits.num_candidates, largest(request)), top_k)
    check_query(request, body.query)
    check_documents(request, num_candidates, "num_candidates")
    begin = time.perf_counter()
    found = await service.backend.retrieve(body.query, num_candidates)
    retrieved = time.perf_counter()
    scored = await service.backend.score(body.query, [neighbour.text for neighbour in found], body.model)
    reranked = time.perf_counter()
    results = merge(found, scored.logits, service.interpolation)[:top_k]
    return SearchResponse(
        id=request_id_of(request.scope),
        model=scored.model or service.model,
        results=[result.without_text() for result in results] if body.return_documents is False else results,
        times={"retrieve": retrieved - begin, "rerank": reranked - retrieved},
    )
