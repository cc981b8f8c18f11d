"""What all dialects share: lenient bodies, documents as text or object, and the ranked list they answer from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints


def readable(value: Any) -> Any:
    """Text in which lone surrogates, which JSON may carry and UTF-8 may not, are U+FFFD; other values as they are."""
    if not isinstance(value, str) or value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def _text_of(value: Any) -> Any:
    """A document sent as ``{"text": ...}`` (Cohere v1, Jina) is its text."""
    return readable(value["text"] if isinstance(value, dict) and "text" in value else value)


Query = Annotated[str, BeforeValidator(readable), StringConstraints(min_length=1)]
Text = Annotated[str, BeforeValidator(_text_of)]
TopN = Annotated[int, Field(ge=1)] | None


class Request(BaseModel):
    """A body in which unknown keys are ignored and optional ones may be null: clients send both."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class Answer(BaseModel):
    """What a dialect answers, for the documentation: answers are written as plain dictionaries, which is faster."""

    model_config = ConfigDict(protected_namespaces=())


@dataclass(frozen=True)
class Item:
    """One document of an answer. ``index`` is its place in the request, ``score`` in 0-1, ``logit`` raw."""

    index: int
    score: float
    logit: float
    text: str


@dataclass(frozen=True)
class Ranking:
    """A scored request: what every dialect writes its answer from.

    Args:
        id: of the request. model: name that the service gives its reranker.
        items: best first, all of them. tokens: that the model read; None when it was not counted.
        created: Unix time of the answer.
    """

    id: str
    model: str
    items: tuple[Item, ...]
    tokens: int | None = None
    created: int = 0

    def top(self, count: int | None) -> tuple[Item, ...]:
        """The best ``count``; None is all of them."""
        return self.items if count is None else self.items[:count]


def rank(logits: Sequence[float], scores: Sequence[float], texts: Sequence[str]) -> tuple[Item, ...]:
    """Items best first. Ordered by logit, since a sigmoid may round two logits to one score; ties keep their order."""
    values = np.asarray(logits, dtype=np.float64)
    # NaN sorts last: a model that overflowed must not put its document on top.
    order = np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")
    return tuple(Item(int(i), float(scores[i]), float(values[i]), texts[i]) for i in order)
