"""vLLM's score API: ``POST /score`` (and ``/v1/score``), scores of pairs in the order sent.

https://docs.vllm.ai/en/latest/models/pooling_models/scoring.html . One text against many, or as many against as many,
under the names ``text_1`` and ``text_2``, ``queries`` and ``documents``, or ``data_1`` and ``data_2``.
"""

from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from ranker.serving.dialects.base import Answer, Query, Request, Text


def _several(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class ScoreRequest(Request):
    """``{"model": ..., "text_1": ..., "text_2": ...}``; each a text or a list of texts."""

    text_1: Annotated[
        list[Query],
        BeforeValidator(_several, json_schema_input_type=Query | Annotated[list[Query], Field(min_length=1)]),
    ] = Field(validation_alias=AliasChoices("text_1", "queries", "query", "data_1"), min_length=1)
    text_2: Annotated[list[Text], BeforeValidator(_several, json_schema_input_type=str | list[str])] = Field(
        validation_alias=AliasChoices("text_2", "documents", "items", "data_2")
    )
    model: str | None = None

    @model_validator(mode="after")
    def _alike(self) -> "ScoreRequest":
        if len(self.text_1) not in (1, len(self.text_2)):
            raise ValueError(
                f"text_1 has {len(self.text_1)} texts and text_2 {len(self.text_2)}; send one, or as many as in text_2"
            )
        return self

    def by_query(self) -> dict[str, list[int]]:
        """Each query with the places of its texts in ``text_2``."""
        if len(self.text_1) == 1:
            return {self.text_1[0]: [*range(len(self.text_2))]}
        places: dict[str, list[int]] = {}
        for place, query in enumerate(self.text_1):
            places.setdefault(query, []).append(place)
        return places


class Score(Answer):
    """Of one pair, by its place in the request."""

    index: int
    object: str
    score: float


class ScoreUsage(Answer):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class ScoreAnswer(Answer):
    """Scores in the order of the pairs."""

    id: str
    object: str
    created: int
    model: str
    data: list[Score]
    usage: ScoreUsage


def answer(request_id: str, created: int, model: str, scores: list[float], tokens: int) -> dict[str, Any]:
    """``{"id", "object": "list", "created", "model", "data": [{"index", "object": "score", "score"}], "usage"}``."""
    return {
        "id": request_id,
        "object": "list",
        "created": created,
        "model": model,
        "data": [{"index": place, "object": "score", "score": score} for place, score in enumerate(scores)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
