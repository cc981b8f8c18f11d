"""Voyage: ``POST {base}/rerank`` under the prefix ``/voyage/v1`` (https://docs.voyageai.com/reference/reranker-api).

A prefix of its own, since ``/rerank`` with ``documents`` is answered in another shape. ``truncation: false`` asks for
an error where a pair is too long; pairs are always truncated here, as the model was trained.
"""

from typing import Any

from ranker.serving.dialects.base import Answer, Query, Ranking, Request, Text, TopN


class VoyageRequest(Request):
    """``{"model": ..., "query": ..., "documents": [...]}``."""

    query: Query
    documents: list[Text]
    model: str | None = None
    top_k: TopN = None
    return_documents: bool | None = None
    truncation: bool | None = None


class VoyageResult(Answer):
    """One document, by its place in the request."""

    index: int
    relevance_score: float
    document: str | None = None


class VoyageUsage(Answer):
    """Tokens that the model read."""

    total_tokens: int


class VoyageAnswer(Answer):
    """Results best first."""

    object: str
    data: list[VoyageResult]
    model: str
    usage: VoyageUsage


def answer(request: VoyageRequest, ranking: Ranking) -> dict[str, Any]:
    """``{"object": "list", "data": [{"index", "relevance_score", "document"?}], "model", "usage"}``."""
    data: list[dict[str, Any]] = []
    for item in ranking.top(request.top_k):
        result: dict[str, Any] = {"index": item.index, "relevance_score": item.score}
        if request.return_documents:
            result["document"] = item.text
        data.append(result)
    return {"object": "list", "data": data, "model": ranking.model, "usage": {"total_tokens": ranking.tokens or 0}}
