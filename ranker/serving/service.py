"""What stands behind the routes: the deployments, the limits, the keys, and the checks that every route shares."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi import Request

from ranker.serving.calls import Backend, Scored
from ranker.serving.errors import ApiError
from ranker.serving.keys import ANYBODY, Key, KeyRing, KeyWatch
from ranker.serving.metrics import GatewayMetrics
from ranker.serving.observation import Gather
from ranker.serving.rates import Rates
from ranker.serving.trace import current


@dataclass(frozen=True)
class Limits:
    """What one request may ask for; a key may have lower ones of its own.

    Args:
        max_documents: documents of a request; 422 above. max_query_chars: characters of a query; 422 above.
        max_body_bytes: bytes of a body; 413 above. num_candidates: neighbours that /search reranks unless told.
    """

    max_documents: int = 1000
    max_query_chars: int = 20_000
    max_body_bytes: int = 16 * 1024 * 1024
    num_candidates: int = 50


@dataclass(frozen=True)
class Service:
    """What stands behind the routes.

    Args:
        model: name of the reranker in answers that no model wrote. interpolation: the retriever's weight in /search.
        rates: what each key has spent. writable: whether /documents may be changed.
        metrics: what this gateway counts. gather: asks all replicas for theirs; None: there are no others.
    """

    backend: Backend
    model: str
    limits: Limits = Limits()
    keys: KeyRing | KeyWatch = field(default_factory=KeyRing)
    interpolation: float = 0.0
    rates: Rates = field(default_factory=Rates)
    writable: bool = True
    metrics: GatewayMetrics = field(default_factory=GatewayMetrics)
    gather: Gather | None = None


def service_of(request: Request) -> Service:
    """The service of the app that a request came to."""
    service: Service = request.app.state.service
    return service


def caller_of(request: Request) -> Key:
    """The key that the door let in."""
    caller: Key = request.scope.get("state", {}).get("caller", ANYBODY)
    return caller


def lower(service: int, key: int | None) -> int:
    """The lower of the service's limit and the key's own."""
    return service if key is None else min(service, key)


def largest(request: Request) -> int:
    """Documents that a request of this key may have."""
    return lower(service_of(request).limits.max_documents, caller_of(request).limits.max_documents)


def check_query(request: Request, query: str) -> None:
    """Refuse a query that is too long.

    Raises:
        ApiError: 422.
    """
    limit = lower(service_of(request).limits.max_query_chars, caller_of(request).limits.max_query_chars)
    if len(query) > limit:
        raise ApiError(422, f"query: {len(query)} characters, the limit is {limit}; shorten it")


def check_documents(request: Request, count: int, noun: str) -> None:
    """Refuse more documents than one request, or this key in this minute, may have.

    Raises:
        ApiError: 422, or 429 with Retry-After.
    """
    service, caller, limit = service_of(request), caller_of(request), largest(request)
    if count > limit:
        raise ApiError(422, f"{noun}: {count} is above the limit of {limit} a request; split it")
    spend(service.rates, caller, "documents", caller.limits.documents_per_minute, count)


def spend(rates: Rates, caller: Key, noun: str, per_minute: int | None, cost: int) -> None:
    """Take from what a key may have in a minute.

    Raises:
        ApiError: 429 with Retry-After.
    """
    wait = rates.spend(caller.name, noun, per_minute, cost)
    if wait:
        message = f"this key may have {per_minute} {noun} a minute; try again after the time in Retry-After"
        raise ApiError(429, message, {"retry-after": str(wait)})


async def score(
    request: Request, query: str, documents: Sequence[str], model: str | None, max_tokens: int | None = None
) -> Scored:
    """Logits of the documents, within the limits of the service and of the key."""
    current().model = service_of(request).model
    check_query(request, query)
    check_documents(request, len(documents), "documents")
    return await service_of(request).backend.score(query, list(documents), model, max_tokens)
