"""What is told of one request when it ends: headers, metrics and a log line. Nothing of its text."""

import logging
import time
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope

from ranker.serving.errors import LOGGER
from ranker.serving.metrics import GatewayMetrics
from ranker.serving.spans import mark
from ranker.serving.trace import Trace

log = logging.getLogger(LOGGER)

# Probes and scrapes come every few seconds, and say nothing of the load.
QUIET = frozenset({"/health", "/ready", "/metrics"})
PARTS = ("queue", "tokenise", "inference", "retrieve")
# The client went away before an answer; the number is nginx's.
GONE_STATUS = 499


class RequestNote:
    """The status and the times of one request.

    Args:
        scope: ASGI's; knows the route once the app has found it. metrics: where the request is counted.
    """

    def __init__(self, scope: Scope, request_id: str, trace: Trace, metrics: GatewayMetrics) -> None:
        self.request_id, self.status = request_id, 0
        self._scope, self._trace, self._metrics = scope, trace, metrics
        self._begin = time.perf_counter()
        self._answered_after = 0.0
        metrics.in_flight.inc()

    def started(self, message: Message) -> None:
        """The answer starts: note its status, and add the headers."""
        self.status = int(message["status"])
        self._answered_after = time.perf_counter() - self._begin
        headers = MutableHeaders(scope=message)
        headers["x-request-id"] = self.request_id
        headers["x-total-time"] = f"{self._answered_after:.6f}"
        for part in PARTS:
            if part in self._trace.times:
                headers[f"x-{part}-time"] = f"{self._trace.times[part]:.6f}"
        if self._route() not in QUIET:
            mark(self._fields())  # now: the request's span ends with the body's last piece

    def finish(self) -> None:
        """Count and log the request."""
        status, route, trace = self.status or GONE_STATUS, self._route(), self._trace
        seconds = self._answered_after or time.perf_counter() - self._begin
        self._metrics.in_flight.dec()
        self._metrics.requests.labels(route, trace.dialect, str(status), trace.model).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if trace.documents:
            self._metrics.documents.observe(trace.documents)
        if route not in QUIET:
            log.info("%s %s %d %.1f ms", self._scope["method"], route, status, 1000 * seconds, extra=self._fields())

    def _fields(self) -> dict[str, Any]:
        """What a JSON log holds of the request, beside the line."""
        trace = self._trace
        return {
            "http_request_id": self.request_id,
            "http_route": self._route(),
            "http_status": self.status or GONE_STATUS,
            "dialect": trace.dialect,
            "model": trace.model,
            "num_documents": trace.documents,
            "retries": trace.retries,
            "total_s": round(self._answered_after, 6),
            **{f"{part}_s": round(seconds, 6) for part, seconds in trace.times.items()},
        }

    def _route(self) -> str:
        """The route's own path. Others share one name, since strangers try many."""
        route = self._scope.get("route")
        path = getattr(route, "path", None)
        if path is None:
            known = {getattr(known, "path", None) for known in getattr(self._scope.get("app"), "routes", ())}
            path = self._scope["path"] if self._scope["path"] in known else "other"
        return str(path)
