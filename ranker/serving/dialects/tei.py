"""text-embeddings-inference: ``POST /rerank`` with ``texts``, answered with a bare list, best first.

https://huggingface.github.io/text-embeddings-inference/ . ``truncate`` and ``truncation_direction`` are accepted
and ignored: pairs are always truncated as the model was trained.
"""

from typing import Any

from ranker.serving.dialects.base import Answer, Query, Ranking, Request, Text


class TeiRequest(Request):
    """``{"query": ..., "texts": [...]}``."""

    query: Query
    texts: list[Text]
    raw_scores: bool | None = None
    return_text: bool | None = None
    model: str | None = None

    @property
    def documents(self) -> list[str]:
        """The texts, by the name that all dialects share."""
        return self.texts


class TeiRank(Answer):
    """One text, by its place in the request."""

    index: int
    score: float
    text: str | None = None


def answer(request: TeiRequest, ranking: Ranking) -> list[dict[str, Any]]:
    """``[{"index", "score", "text"?}]``, as long as the input; logits when ``raw_scores``."""
    results: list[dict[str, Any]] = []
    for item in ranking.items:
        result: dict[str, Any] = {"index": item.index, "score": item.logit if request.raw_scores else item.score}
        if request.return_text:
            result["text"] = item.text
        results.append(result)
    return results
