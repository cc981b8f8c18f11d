"""Every error is one JSON body with string values, whatever client reads it.

Cohere's clients read ``message``, Jina's and Voyage's ``detail`` (a list there crashes them), those of
text-embeddings-inference ``error`` and ``error_type``. Infinity's own client reads ``detail`` of a 422 as a list, and
crashes on a text that is not empty; there it is empty, and ``message`` says what is wrong.
"""

import logging
import math
import traceback
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from ranker.serving.trace import current

# Below Serve's own logger, so that `logging_config` of a Serve config decides encoding, level and place.
LOGGER = "ray.serve.ranker"
log = logging.getLogger(LOGGER)
RETRY_AFTER_S = 1
LONGEST_RETRY_AFTER_S = 30

# The words of text-embeddings-inference where it has one (its ErrorType), so that its clients know them.
ERROR_TYPES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    413: "PayloadTooLarge",
    422: "Validation",
    429: "Overloaded",
    500: "Backend",
    503: "Unhealthy",
    504: "Timeout",
}


class ApiError(HTTPException):
    """An error that the client is told, with its HTTP status and headers."""

    # An HTTPException, because FastAPI turns any other error that is raised while it reads a body into a 400.

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, dict(headers or {}))


class EngineError(RuntimeError):
    """A model or index failed on a request; holds the kind of the failure and nothing of the request."""


def queue_full(wait_s: float) -> ApiError:
    """429 with the time after which to try again: whole seconds, from 1 to 30."""
    wait = min(LONGEST_RETRY_AFTER_S, max(RETRY_AFTER_S, math.ceil(wait_s)))
    return ApiError(429, "the queue is full; try again after the time in Retry-After", {"retry-after": str(wait)})


def unavailable() -> ApiError:
    """503, for a deployment without a replica that answers."""
    return ApiError(503, "no replica can answer now; try again later", {"retry-after": str(RETRY_AFTER_S)})


class WriteError(RuntimeError):
    """Documents that could not be written; what a client is told of it."""


class UnknownModelError(LookupError):
    """A model name that the service does not have, where it has several; the message lists those that it has."""


class ErrorBody(BaseModel):
    """What every error looks like: one message under the names that different clients read."""

    message: str
    detail: str
    error: str
    error_type: str
    id: str


def error_body(status: int, message: str, request_id: str, detail: str | None = None) -> dict[str, str]:
    """The one body of all errors. ``detail=None``: the message there too."""
    kind = ERROR_TYPES.get(status, "Error")
    said = message if detail is None else detail
    return {"message": message, "detail": said, "error": message, "error_type": kind, "id": request_id}


def error_response(
    status: int,
    message: str,
    request_id: str,
    headers: Mapping[str, str] | None = None,
    detail: str | None = None,
) -> JSONResponse:
    """The body as a response, with the request id also as a header."""
    body = error_body(status, message, request_id, detail)
    return JSONResponse(body, status, {**(headers or {}), "x-request-id": request_id})


def request_id_of(scope: Mapping[str, Any]) -> str:
    """The id that the door gave the request; empty outside it."""
    return str(scope.get("state", {}).get("request_id", ""))


def explain_validation(details: list[Any]) -> str:
    """All mistakes of a body in one line: ``documents.3: Input should be a valid string; top_n: ...``.

    The value that was sent is left out: it may be a whole document.
    """
    lines = []
    for detail in details:
        path = ".".join(str(part) for part in detail["loc"] if part != "body")
        lines.append(f"{path}: {detail['msg']}" if path else str(detail["msg"]))
    shown = "; ".join(dict.fromkeys(lines[:5]))
    return shown + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")


def log_failure(where: str, request_id: str, error: BaseException) -> None:
    """Log the kind of an error and where it was raised; its message is left out, since it may quote the request."""
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    log.error("%s failed with %s, request %s\n%s", where, type(error).__name__, request_id or "-", frames)


def install(app: FastAPI) -> None:
    """Answer every error of the app in the one shape."""

    @app.exception_handler(ApiError)
    async def told(request: Request, error: ApiError) -> JSONResponse:
        detail = "" if error.status_code == 422 and _is_infinitys(request) else None
        return error_response(error.status_code, error.detail, request_id_of(request.scope), error.headers, detail)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        said, detail = explain_validation(list(error.errors())), "" if _is_infinitys(request, error.body) else None
        return error_response(422, said, request_id_of(request.scope), detail=detail)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}"
        return error_response(error.status_code, message, request_id_of(request.scope), error.headers)


def _is_infinitys(request: Request, body: Any = None) -> bool:
    """Whether a client of Infinity asks; ``body`` where it could not be read, so that no route has told the dialect."""
    if current().dialect == "infinity" or request.url.path.endswith("/infinity/rerank"):
        return True
    return isinstance(body, dict) and "raw_scores" in body and body.get("texts") is None
