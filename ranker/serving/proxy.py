"""In front of Ray Serve's own proxy: its errors as JSON, and a second try where a gateway died.

Ray's proxy answers in plain text where no gateway does: its timeout (408), a full queue (503 or 429), no such route
(404), a gateway that died (500). Clients of the dialects crash on that. Set before Serve starts, on every node::

    export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=ranker.serving.proxy:middlewares

What a gateway answers, or another application, passes untouched: only plain text with one of those numbers is Ray's.
"""

import asyncio
import time
import uuid
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ranker.serving.errors import RETRY_AFTER_S, error_response
from ranker.serving.trace import AGE_HEADER

# Ray's own paths, for probes.
OWN_PATHS = "/-/"
ATTEMPTS = 3
PAUSE_S = 0.2
# Bodies above this are not kept for a second try.
MOST_KEPT_BYTES = 16 * 1024 * 1024
# The status that a client sees for one of Ray's, and what is said.
SPOKEN = {
    404: (404, "no such path; see /docs"),
    408: (504, "no answer within the time that the service allows; send fewer documents or try again later"),
    429: (429, "the queue is full; try again after the time in Retry-After"),
    503: (503, "no replica can answer now; try again later"),
}
# The proxy says nothing at all when a gateway died under a request.
SILENT = (503, "the gateway went away while it answered; try again later")


def middlewares() -> list[Middleware]:
    """What Ray Serve's proxies put around themselves."""
    return [Middleware(ProxyGuard)]


class ProxyGuard:
    """ASGI middleware around Ray Serve's proxy. Scoring and searching change nothing, so they may be repeated.

    Args:
        app: the proxy. attempts: tries of one request in all.
    """

    def __init__(self, app: ASGIApp, attempts: int = ATTEMPTS) -> None:
        self.app, self.attempts = app, attempts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request as ASGI does."""
        if scope["type"] != "http" or scope["path"].startswith(OWN_PATHS):
            await self.app(scope, receive, send)
            return
        body, begin = _Body(receive), time.monotonic()
        for attempt in range(1, self.attempts + 1):
            answer = _Answer(send)
            try:
                age = time.monotonic() - begin if attempt > 1 else None
                await self.app(_aged(scope, age), body.replayed(), answer.send)
            except Exception:  # the proxy logs it; here it is one more request without an answer
                if answer.passed:
                    raise
            if answer.passed or body.disconnected:
                return
            if attempt == self.attempts or not body.whole or answer.status is not None:
                break
            await asyncio.sleep(PAUSE_S * attempt)
        await _tell(answer, scope, receive, send)


def _aged(scope: Scope, age: float | None) -> Scope:
    """The request for one try. A repeated one says for how long the client waits, so that its deadline goes on.

    A gateway that fell silent is known to be gone some seconds later; with a whole new deadline on top of them the
    client would wait longer than it was told, and the answer could come after it has hung up.
    """
    headers = [(name, value) for name, value in scope["headers"] if name.lower() != AGE_HEADER.encode()]
    if age is not None:
        headers.append((AGE_HEADER.encode(), f"{age:.3f}".encode()))
    return {**scope, "headers": headers}


async def _tell(answer: "_Answer", scope: Scope, receive: Receive, send: Send) -> None:
    status, message = SILENT if answer.status is None else SPOKEN[answer.status]
    given = Headers(scope=scope).get("x-request-id", "")
    headers = {"retry-after": str(RETRY_AFTER_S)} if status in (429, 503) else {}
    headers.update({name: value for name, value in answer.headers.items() if name == "retry-after"})
    request_id = given if given.isascii() and 0 < len(given) <= 128 else uuid.uuid4().hex
    await error_response(status, message, request_id, headers)(scope, receive, send)


@dataclass
class _Body:
    """The client's body, kept while it is read so that it can be read again."""

    receive: Receive
    kept: list[Message] = field(default_factory=list)
    size: int = 0
    disconnected: bool = False

    @property
    def whole(self) -> bool:
        """Whether all that was read can be read again; the rest is still to come."""
        return self.size <= MOST_KEPT_BYTES

    def replayed(self) -> Receive:
        """A receiver from the start of the body."""
        position = 0

        async def receive() -> Message:
            nonlocal position
            if position < len(self.kept):
                position += 1
                return self.kept[position - 1]
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.disconnected = True
                return message
            self.size += len(message.get("body", b""))
            if self.whole:
                self.kept.append(message)
                position += 1
            else:
                self.kept.clear()
            return message

        return receive


class _Answer:
    """Passes an answer on as soon as it is known to be one for the client, and holds back the others."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.passed, self.headers = False, Headers({})
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        """What the proxy sends."""
        if message["type"] == "http.response.start":
            self.status, self.headers = int(message["status"]), Headers(raw=message.get("headers", []))
            self.passed = not _is_rays(self.status, self.headers)
        if self.passed:
            await self._send(message)


def _is_rays(status: int, headers: Headers) -> bool:
    return status in SPOKEN and headers.get("content-type", "").startswith("text/plain")
