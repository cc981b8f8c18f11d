"""Cohere: ``POST /v2/rerank`` (https://docs.cohere.com/reference/rerank); version 1 shares its route with Jina.

Without ``max_tokens_per_doc`` a pair is cut to what the model reads, as in training; Cohere's own default is 4096.
"""

from typing import Annotated, Any

from pydantic import Field

from ranker.serving.dialects.base import Answer, Query, Ranking, Request, Text, TopN


class CohereRequest(Request):
    """``{"model": ..., "query": ..., "documents": [...]}``."""

    query: Query
    documents: list[Text]
    model: str | None = None
    top_n: TopN = None
    max_tokens_per_doc: Annotated[int, Field(ge=1, description="Cut documents to this many tokens.")] | None = None


class CohereResult(Answer):
    """One document, by its place in the request."""

    index: int
    relevance_score: float


class CohereAnswer(Answer):
    """Results best first."""

    id: str
    results: list[CohereResult]
    meta: dict[str, Any]


def answer(request: CohereRequest, ranking: Ranking) -> dict[str, Any]:
    """``{"id", "results": [{"index", "relevance_score"}], "meta"}``."""
    results = [{"index": item.index, "relevance_score": item.score} for item in ranking.top(request.top_n)]
    return {"id": ranking.id, "results": results, "meta": meta("2")}


def meta(version: str) -> dict[str, Any]:
    """What Cohere's clients read beside the results; nothing is billed here."""
    return {"api_version": {"version": version}, "billed_units": {"search_units": 0}}
