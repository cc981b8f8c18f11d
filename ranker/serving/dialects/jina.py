"""Jina, vLLM and Cohere version 1 (``POST /v1/rerank``) and Infinity (``POST /rerank`` with ``documents``).

One answer serves all four, since each ignores the keys of the others. They differ in one thing: ``document``
is ``{"text": ...}`` for the first three and a plain string for Infinity, whose client always sends ``raw_scores``.
"""

from typing import Any

from ranker.serving.dialects.base import Query, Ranking, Request, Text, TopN
from ranker.serving.dialects.cohere import meta


class RerankRequest(Request):
    """``{"model": ..., "query": ..., "documents": [...]}``."""

    query: Query
    documents: list[Text]
    model: str | None = None
    top_n: TopN = None
    return_documents: bool | None = None
    raw_scores: bool | None = None

    @property
    def from_infinity(self) -> bool:
        """Whether the body is that of an Infinity client."""
        return "raw_scores" in self.model_fields_set


def answer(request: RerankRequest, ranking: Ranking) -> dict[str, Any]:
    """``{"id", "object", "model", "usage", "results": [{"index", "relevance_score", "document"?}], "meta"}``.

    Unsaid, documents come back, as Jina and vLLM do; for Infinity they do not, as there.
    """
    wanted = request.return_documents
    with_text = (not request.from_infinity) if wanted is None else wanted
    results: list[dict[str, Any]] = []
    for item in ranking.top(request.top_n):
        score = item.logit if request.raw_scores else item.score
        result: dict[str, Any] = {"index": item.index, "relevance_score": score}
        if with_text:
            result["document"] = item.text if request.from_infinity else {"text": item.text}
        results.append(result)
    tokens = ranking.tokens or 0
    return {
        "id": ranking.id,
        "object": "rerank",
        "model": ranking.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "results": results,
        "meta": meta("1"),
    }
