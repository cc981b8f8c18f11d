"""What the gateway asks of the deployments behind it: with a deadline, and with errors that a client can act on."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
)

from ranker.serving.errors import ApiError

T = TypeVar("T")
RETRY_AFTER_S = 1
GONE = (DeploymentUnavailableError, ReplicaUnavailableError, RequestCancelledError, RayActorError)
READY_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Scored:
    """Logits of one request's documents, in order; tokens that the model read; seconds queued and inferred."""

    logits: list[float]
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Neighbour:
    """A document that the retriever found; ``text`` is what a model reads of it."""

    doc_id: str
    score: float
    text: str


class Handle(Protocol):
    """A Ray Serve DeploymentHandle, or anything with methods whose ``remote`` can be awaited."""

    def __getattr__(self, name: str) -> Any: ...


@runtime_checkable
class _Cancellable(Protocol):
    def cancel(self) -> Any: ...


class Backend:
    """The reranker and, where the service has one, the retriever.

    Args:
        reranker, retriever: handles. deadline_s: longest time for one request; 504 after it.
    """

    def __init__(self, reranker: Handle, retriever: Handle | None, deadline_s: float) -> None:
        self._reranker, self._retriever, self._deadline_s = reranker, retriever, deadline_s

    async def score(self, query: str, documents: list[str]) -> Scored:
        """Logits of the documents.

        Raises:
            ApiError: 429 when the queue is full, 503 when no replica is there, 504 after the deadline.
        """
        if not documents:
            return Scored([], 0, 0.0)
        return await self._within(self._reranker.score.remote(query, documents), self._deadline_s)

    async def retrieve(self, query: str, num_candidates: int) -> list[Neighbour]:
        """The nearest documents, best first. Errors as in :meth:`score`."""
        if self._retriever is None:
            raise ApiError(404, "this service has no index (retrieval: false in its args); POST /rerank instead")
        return await self._within(self._retriever.retrieve.remote(query, num_candidates), self._deadline_s)

    async def describe(self) -> dict[str, Any]:
        """What the deployments say of themselves; also the proof that each has a replica that answers."""
        told = {"reranker": await self._within(self._reranker.describe.remote(), READY_TIMEOUT_S)}
        if self._retriever is not None:
            told["index"] = await self._within(self._retriever.describe.remote(), READY_TIMEOUT_S)
        return told

    async def _within(self, call: Awaitable[T], seconds: float) -> T:
        try:
            return await asyncio.wait_for(_awaited(call), seconds)
        except TimeoutError:
            _cancel(call)
            raise ApiError(504, f"no answer within {seconds:g} s; send fewer documents or try again later") from None
        except asyncio.CancelledError:
            _cancel(call)  # the client went away: its pairs leave the queue
            raise
        except BackPressureError:
            raise ApiError(
                429, "the queue is full; try again after the time in Retry-After", {"retry-after": str(RETRY_AFTER_S)}
            ) from None
        except GONE:
            raise ApiError(
                503, "no replica can answer now; try again later", {"retry-after": str(RETRY_AFTER_S)}
            ) from None


async def _awaited(call: Awaitable[T]) -> T:
    return await call


def _cancel(call: object) -> None:
    if isinstance(call, _Cancellable):
        call.cancel()
