"""What the gateway asks of the deployments behind it: with a deadline, and with errors that a client can act on.

A call is repeated where its replica went away, since scoring and searching change nothing. What a full queue refuses
is told at once.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RaySystemError,
    WorkerCrashedError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
)

from ranker.serving.batching import SHARE_OF_DEADLINE, QueueFullError
from ranker.serving.errors import RETRY_AFTER_S, ApiError, UnknownModelError, WriteError, queue_full, unavailable
from ranker.serving.overload import Overload
from ranker.serving.trace import current

if TYPE_CHECKING:
    from ranker.serving.index_worker import Changed
    from ranker.serving.live_index import Document

T = TypeVar("T")
# The replica, its process or its node is gone, and another one may answer.
GONE = (
    ReplicaUnavailableError, RequestCancelledError, RayActorError, WorkerCrashedError, ObjectLostError, NodeDiedError,
    LocalRayletDiedError, RaySystemError, OutOfMemoryError,
)  # fmt: skip
# Three in all: a request that kills whoever reads it must not go through the whole deployment.
ATTEMPTS = 3
PAUSE_S = 0.1
READY_TIMEOUT_S = 5.0
# An answer that recent proves a deployment, whatever its queue says now.
PROOF_S = 10.0


@dataclass(frozen=True)
class Scored:
    """Logits of one request's documents, in order.

    Args:
        tokens: that the model read. seconds: in the replica. queued, tokenised, inferred: parts of them.
        truncated: documents that were cut. model: name of the reranker that scored them.
    """

    logits: list[float]
    tokens: int
    seconds: float
    queued: float = 0.0
    tokenised: float = 0.0
    inferred: float = 0.0
    truncated: int = 0
    model: str = ""


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
        reranker, retriever: handles. deadline_s: longest time for one request, all its calls together; 504 after it.
        retried: told the deployment of every call that is repeated.
    """

    def __init__(
        self,
        reranker: Handle,
        retriever: Handle | None,
        deadline_s: float,
        retried: Callable[[str], None] = lambda deployment: None,
    ) -> None:
        self._reranker, self._retriever, self._deadline_s, self._retried = reranker, retriever, deadline_s, retried
        self._answered: dict[str, float] = {}
        # What is refused unread needs the reranker, so only its queue counts.
        self.overload = Overload()
        self._queues = {"reranker": self.overload, "retriever": Overload()}

    async def score(
        self, query: str, documents: list[str], model: str | None = None, max_tokens: int | None = None
    ) -> Scored:
        """Logits of the documents.

        Args:
            model: name of the reranker; None: the first. max_tokens: a document's, at most; None: what the model takes.

        Raises:
            ApiError: 404 on an unknown model, 429 when the queue is full, 503 when no replica is there, 504 after the
                deadline.
        """
        if not documents:
            return Scored([], 0, 0.0)
        wishes = {name: wish for name, wish in (("model", model), ("max_tokens", max_tokens)) if wish is not None}
        scored: Scored = await self._ask(
            "reranker", lambda left: self._reranker.score.remote(query, documents, left, **wishes)
        )
        trace = current()
        trace.documents += len(documents)
        trace.model = scored.model or trace.model
        for part, seconds in (
            ("queue", scored.queued), ("tokenise", scored.tokenised), ("inference", scored.inferred)
        ):  # fmt: skip
            trace.spent(part, seconds)
        return scored

    async def retrieve(self, query: str, num_candidates: int) -> list[Neighbour]:
        """The nearest documents, best first. Errors as in :meth:`score`."""
        retriever, begin = self._index(), time.perf_counter()
        found: list[Neighbour] = await self._ask(
            "retriever", lambda left: retriever.retrieve.remote(query, num_candidates)
        )
        current().spent("retrieve", time.perf_counter() - begin)
        return found

    async def change(self, put: "list[Document]", delete: list[str]) -> "Changed":
        """Add, replace and delete documents. Doing it twice changes nothing more, so it may be repeated.

        Raises:
            ApiError: 503 where they could not be written; the rest as in :meth:`score`.
        """
        retriever = self._index()
        return await self._ask("retriever", lambda left: retriever.change.remote(put, delete))

    async def get_document(self, doc_id: str) -> "Document | None":
        """The document with this id. Errors as in :meth:`score`."""
        retriever = self._index()
        return await self._ask("retriever", lambda left: retriever.get.remote(doc_id))

    async def describe(self) -> dict[str, Any]:
        """What the deployments say of themselves; also the proof that each has a replica that answers."""
        told = {"reranker": await self._describe("reranker", self._reranker)}
        if self._retriever is not None:
            told["index"] = await self._describe("retriever", self._retriever)
        return told

    async def prove(self) -> None:
        """Return where every deployment has a replica that answers; one that is merely busy counts.

        Raises:
            ApiError: 503 or 504 where one does not.
        """
        for name, handle in (("reranker", self._reranker), ("retriever", self._retriever)):
            if handle is None or time.monotonic() - self._answered.get(name, -math.inf) < PROOF_S:
                continue
            try:
                await self._describe(name, handle)
            except ApiError as error:
                if error.status_code != 429:
                    raise

    def _index(self) -> Handle:
        if self._retriever is None:
            raise ApiError(404, "this service has no index (retrieval: false in its args); POST /rerank instead")
        return self._retriever

    async def _describe(self, name: str, handle: Handle) -> Any:
        return await self._ask(name, lambda left: handle.describe.remote(), READY_TIMEOUT_S)

    async def _ask(self, deployment: str, call: Callable[[float], Awaitable[T]], seconds: float | None = None) -> T:
        """The answer of a call, repeated while replicas go away and time is left.

        Args:
            seconds: for this call alone. None: what the request's other calls have left of its deadline.
        """
        end = current().began + self._deadline_s if seconds is None else time.monotonic() + seconds
        for attempt in range(1, ATTEMPTS + 1):
            left = end - time.monotonic()
            if left <= 0:
                raise self._too_late(seconds)
            try:
                answer = await self._within(deployment, call(left), left, seconds)
            except GONE:
                if attempt == ATTEMPTS or time.monotonic() + PAUSE_S * attempt >= end:
                    break
                current().retries += 1
                self._retried(deployment)
                await asyncio.sleep(PAUSE_S * attempt)
                continue
            self._answered[deployment] = time.monotonic()
            return answer
        raise unavailable()

    def _too_late(self, seconds: float | None) -> ApiError:
        limit = self._deadline_s if seconds is None else seconds
        return ApiError(504, f"no answer within {limit:g} s; send fewer documents or try again later")

    def _refused(self, deployment: str, error: QueueFullError, left: float) -> ApiError:
        """429, remembered for the requests that come after it."""
        wait, trace = error.wait_s - left * SHARE_OF_DEADLINE, current()
        if error.for_all:
            self._queues[deployment].refused(wait, trace.route, trace.body_bytes)
        return queue_full(wait)

    async def _within(self, deployment: str, call: Awaitable[T], left: float, seconds: float | None) -> T:
        try:
            answer = await asyncio.wait_for(_awaited(call), left)
        except TimeoutError:
            _cancel(call)
            raise self._too_late(seconds) from None
        except asyncio.CancelledError:
            _cancel(call)  # the client went away: its pairs leave the queue
            raise
        except BackPressureError:
            self._queues[deployment].refused(RETRY_AFTER_S)
            raise queue_full(RETRY_AFTER_S) from None
        except QueueFullError as error:
            raise self._refused(deployment, error, left) from None
        except UnknownModelError as error:
            raise ApiError(404, _message(error)) from None
        except WriteError as error:
            raise ApiError(503, _message(error), {"retry-after": str(RETRY_AFTER_S)}) from None
        except DeploymentUnavailableError:
            raise unavailable() from None
        self._queues[deployment].answered()
        return answer


def _message(error: Exception) -> str:
    """What a replica said; Ray wraps its error and adds a traceback."""
    return str(getattr(error, "cause", error))


async def _awaited(call: Awaitable[T]) -> T:
    try:
        return await call
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
        # Not the request was cancelled, but what the replica made of it.
        raise ReplicaUnavailableError("the replica let go of the request") from None


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _cancel(call: object) -> None:
    if isinstance(call, _Cancellable):
        call.cancel()
