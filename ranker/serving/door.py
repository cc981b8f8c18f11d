"""The door in front of every route: a request id, the key, the size of the body, and no error without a body."""

import re
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ranker.serving.errors import ApiError, error_response, log_failure, queue_full
from ranker.serving.keys import KeyRing, KeyWatch
from ranker.serving.metrics import GatewayMetrics
from ranker.serving.note import RequestNote
from ranker.serving.overload import Overload
from ranker.serving.rates import Rates
from ranker.serving.service import lower, spend
from ranker.serving.trace import AGE_HEADER, begin, current, end

# Probes of Kubernetes and of load balancers carry no key, and the pages hold no secret.
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})
# What needs the reranker's queue.
SHED = ("/rerank", "/score", "/search")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_DIGITS = re.compile(r"[0-9]{1,18}")
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


class Door:
    """ASGI middleware; outside of everything else, so that also what nobody foresaw is answered as JSON.

    Args:
        app: what stands behind it. keys: who may enter; empty lets everybody in.
        max_body_bytes: larger bodies get 413 before they are parsed. metrics: where requests are counted.
        overload: knows which requests the queue refused a moment ago; others like them are refused unread.
        rates: what each key has spent.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: KeyRing | KeyWatch,
        max_body_bytes: int,
        metrics: GatewayMetrics | None = None,
        overload: Overload | None = None,
        rates: Rates | None = None,
    ) -> None:
        self.app, self.keys, self.max_body_bytes, self.rates = app, keys, max_body_bytes, rates or Rates()
        self.metrics, self.overload = metrics or GatewayMetrics(), overload or Overload()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request as ASGI does."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        trace, token = begin(_age(scope))
        trace.route, trace.body_bytes = str(scope["path"]), _length(scope)
        note = RequestNote(scope, request_id, trace, self.metrics)
        try:
            await self._answer(scope, receive, send, note)
        finally:  # also where the client went away
            end(token)
            note.finish()

    async def _answer(self, scope: Scope, receive: Receive, send: Send, note: RequestNote) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                note.started(message)
            await send(message)

        try:
            limit = self._check(scope)
            await self.app(scope, self._limited(receive, limit), send_marked)
        except ApiError as error:
            if note.status:
                raise
            response = error_response(error.status_code, error.detail, note.request_id, error.headers)
            await response(scope, receive, send_marked)
        except Exception as error:
            log_failure(str(scope["path"]), note.request_id, error)
            if note.status:
                raise
            message = "the service failed on this request; its log names the request id"
            await error_response(500, message, note.request_id)(scope, receive, send_marked)

    def _check(self, scope: Scope) -> int:
        """Let the request in, or raise; the largest body that its key may send."""
        if scope["path"] in OPEN_PATHS:
            return self.max_body_bytes
        headers = Headers(scope=scope)
        caller = self.keys.find(headers.get("authorization"))
        if caller is None:
            raise ApiError(401, "no valid API key; send 'Authorization: Bearer KEY'", {"www-authenticate": "Bearer"})
        scope["state"]["caller"] = caller
        trace = current()
        limit = lower(self.max_body_bytes, caller.limits.max_body_bytes)
        if trace.body_bytes is not None and trace.body_bytes > limit:
            raise _too_large(limit)
        sheds = scope["method"] == "POST" and trace.route.endswith(SHED)
        if sheds and not self.overload.admits(trace.route, trace.body_bytes):
            self.metrics.shed.inc()
            raise queue_full(self.overload.wait_s)
        spend(self.rates, caller, "requests", caller.limits.requests_per_minute, 1)
        return limit

    def _limited(self, receive: Receive, limit: int) -> Receive:
        """The same for bodies that do not say how long they are."""
        seen = 0

        async def limited() -> MutableMapping[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
            return message

        return limited


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the body is larger than {limit} bytes; send fewer documents a request")


def _length(scope: Scope) -> int | None:
    """Bytes of the body, where the client says so."""
    given = Headers(scope=scope).get("content-length", "")
    return int(given) if _DIGITS.fullmatch(given) else None


def _age(scope: Scope) -> float:
    """Seconds that the guard of the proxy says were spent on other gateways; what makes no sense is none."""
    given = Headers(scope=scope).get(AGE_HEADER, "")
    # Digits and a point only: no sign, so that nobody gets more time, and no "nan" or "inf".
    return float(given) if _SECONDS.fullmatch(given) else 0.0


def _request_id(scope: Scope) -> str:
    """The client's own id where it is short and plain, else a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex
