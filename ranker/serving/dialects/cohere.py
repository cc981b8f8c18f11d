"""Cohere: ``POST /v2/rerank`` (https://docs.cohere.com/reference/rerank); version 1 shares its route with Jina.

``max_tokens_per_doc`` is accepted and ignored: a pair is truncated to the model's own length.
"""

from typing import Any

from ranker.serving.dialects.base import Query, Ranking, Request, Text, TopN


class RerankRequest(Request):
    """``{"model": ..., "query": ..., "documents": [...]}``."""

    query: Query
    documents: list[Text]
    model: str | None = None
    top_n: TopN = None
    max_tokens_per_doc: int | None = None


def answer(request: RerankRequest, ranking: Ranking) -> dict[str, Any]:
    """``{"id", "results": [{"index", "relevance_score"}], "meta"}``."""
    results = [{"index": item.index, "relevance_score": item.score} for item in ranking.top(request.top_n)]
    return {"id": ranking.id, "results": results, "meta": meta("2")}


def meta(version: str) -> dict[str, Any]:
    """What Cohere's clients read beside the results; nothing is billed here."""
    return {"api_version": {"version": version}, "billed_units": {"search_units": 0}}
