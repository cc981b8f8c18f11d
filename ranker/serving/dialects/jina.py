"""Jina, vLLM and Cohere version 1 (``POST /v1/rerank``) and Infinity (``POST /rerank`` with ``documents``).

One answer serves all four, since each ignores the keys of the others. They differ in one thing: ``document``
is ``{"text": ...}`` for the first three and a plain string for Infinity, whose client always sends ``raw_scores``.
Other clients of Infinity (LiteLLM) send what clients of vLLM send; they have the prefix ``/infinity``.
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from ranker.serving.dialects.base import Answer, Query, Ranking, Request, Text, TopN
from ranker.serving.dialects.cohere import meta


class JinaRequest(Request):
    """``{"model": ..., "query": ..., "documents": [...]}``."""

    query: Query
    documents: list[Text]
    model: str | None = None
    top_n: TopN = None
    return_documents: bool | None = None
    raw_scores: bool | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=1, description="Cut documents to this many tokens.")] | None = None
    rank_fields: list[str] | None = Field(None, description="Keys of documents that are objects, joined into a text.")

    @model_validator(mode="before")
    @classmethod
    def _join_fields(cls, body: Any) -> Any:
        """An object is read as the lines ``key: value`` of its ``rank_fields``, as by version 1 of Cohere."""
        fields = body.get("rank_fields") if isinstance(body, dict) else None
        documents = body.get("documents") if isinstance(body, dict) else None
        if not fields or not isinstance(fields, list) or not isinstance(documents, list):
            return body
        names = [name for name in fields if isinstance(name, str)]
        return {**body, "documents": [_joined(document, names) for document in documents]}

    @property
    def from_infinity(self) -> bool:
        """Whether the body is that of an Infinity client."""
        return "raw_scores" in self.model_fields_set


class JinaDocument(Answer):
    """The text of a result."""

    text: str


class JinaResult(Answer):
    """One document, by its place in the request; ``document`` is a plain string for Infinity."""

    index: int
    relevance_score: float
    document: JinaDocument | str | None = None


class JinaUsage(Answer):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class JinaAnswer(Answer):
    """Results best first."""

    id: str
    object: str
    created: int
    model: str
    usage: JinaUsage
    results: list[JinaResult]
    meta: dict[str, Any]


def answer(request: JinaRequest, ranking: Ranking, plain: bool = False) -> dict[str, Any]:
    """The body as :class:`JinaAnswer` says it.

    Unsaid, documents come back, as Jina and vLLM do; for Infinity they do not, as there.

    Args:
        plain: documents are plain strings, as Infinity's.
    """
    wanted = request.return_documents
    with_text = (not plain) if wanted is None else wanted
    results: list[dict[str, Any]] = []
    for item in ranking.top(request.top_n):
        score = item.logit if request.raw_scores else item.score
        result: dict[str, Any] = {"index": item.index, "relevance_score": score}
        if with_text:
            result["document"] = item.text if plain else {"text": item.text}
        results.append(result)
    tokens = ranking.tokens or 0
    return {
        "id": ranking.id,
        "object": "rerank",
        "created": ranking.created,
        "model": ranking.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "results": results,
        "meta": meta("1"),
    }


def _joined(document: Any, names: list[str]) -> Any:
    if not isinstance(document, dict) or not any(name in document for name in names):
        return document
    return "\n".join(f"{name}: {document[name]}" for name in names if name in document)
