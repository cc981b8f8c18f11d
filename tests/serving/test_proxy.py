"""What stands around Ray Serve's proxy, around proxies that fail as Ray's does."""

import asyncio
import importlib
import os
from unittest import mock

import pytest
from fastapi.testclient import TestClient
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse

from ranker.serving import proxy
from ranker.serving.proxy import ProxyGuard
from ranker.serving.trace import AGE_HEADER

BODY = {"query": "a", "texts": ["b" * 100_000]}


class Proxy:
    """Answers in turn as told; None says nothing, as Ray's proxy where the gateway died; keeps the bodies it read."""

    def __init__(self, *answers):
        self.answers, self.bodies, self.ages = list(answers), [], []

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        self.ages.append(Headers(scope=scope).getlist(AGE_HEADER))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            await answer(scope, receive, send)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(proxy, "PAUSE_S", 0.001)


def post(inner: Proxy, path: str = "/rerank"):
    return TestClient(ProxyGuard(inner)).post(path, json=BODY, headers={"x-request-id": "trace-7"})


def test_a_gateway_that_dies_under_a_request_is_not_seen():
    inner = Proxy(None, RuntimeError("the actor died"), JSONResponse([1]))
    answer = post(inner)
    assert (answer.status_code, answer.json()) == (200, [1])
    assert len(inner.bodies) == 3 and len(set(inner.bodies)) == 1 and len(inner.bodies[0]) > 100_000


def test_a_repeated_request_says_how_long_it_was_tried_and_only_the_guard_says_so(monkeypatch):
    monkeypatch.setattr(proxy, "PAUSE_S", 0.05)
    inner = Proxy(None, None, JSONResponse([1]))
    assert TestClient(ProxyGuard(inner)).post("/rerank", json=BODY, headers={AGE_HEADER: "9"}).status_code == 200
    first, [second], [third] = inner.ages
    assert first == [] and 0.05 <= float(second) < float(third) - 0.09 and float(third) < 5


def test_one_that_kills_every_gateway_ends_after_three():
    inner = Proxy(None, None, None, JSONResponse([1]))
    answer = post(inner)
    assert (answer.status_code, answer.json()["error_type"], answer.headers["retry-after"]) == (503, "Unhealthy", "1")
    assert len(inner.bodies) == 3


def test_a_body_that_is_too_large_to_keep_is_not_repeated(monkeypatch):
    monkeypatch.setattr(proxy, "MOST_KEPT_BYTES", 1000)
    inner = Proxy(None, JSONResponse([1]))
    assert post(inner).status_code == 503
    assert len(inner.bodies) == 1 and len(inner.bodies[0]) > 100_000


@pytest.mark.parametrize(
    ("rays", "status", "kind"), [(408, 504, "Timeout"), (429, 429, "Overloaded"), (503, 503, "Unhealthy"),
                                 (404, 404, "NotFound")]
)  # fmt: skip
def test_what_ray_says_in_plain_text_is_said_in_the_one_shape(rays, status, kind):
    inner = Proxy(PlainTextResponse("Request dropped", rays, {"retry-after": "7"}))
    answer = post(inner)
    body = answer.json()
    assert (answer.status_code, body["error_type"], body["id"]) == (status, kind, "trace-7")
    assert body.keys() == {"message", "detail", "error", "error_type", "id"}
    assert answer.headers["retry-after"] == "7"
    assert len(inner.bodies) == 1  # a refusal is not asked again


@pytest.mark.parametrize(
    "answer",
    [JSONResponse({"message": "no"}, 429), JSONResponse({}, 404), PlainTextResponse("fine"),
     PlainTextResponse("of another application", 500)],
)  # fmt: skip
def test_everything_else_passes_untouched(answer):
    found = post(Proxy(answer))
    assert (found.status_code, found.content) == (answer.status_code, answer.body)


def test_rays_own_paths_pass():
    found = TestClient(ProxyGuard(Proxy(PlainTextResponse("draining", 503)))).get("/-/healthz")
    assert (found.status_code, found.text) == (503, "draining")


def test_a_client_that_goes_away_is_not_asked_for_again():
    calls = []

    async def gone(scope, receive, send):
        calls.append(await receive())

    async def story():
        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            raise AssertionError(message)

        await ProxyGuard(gone)({"type": "http", "path": "/rerank", "headers": []}, receive, send)

    asyncio.run(story())
    assert len(calls) == 1


def test_ray_takes_the_middleware_from_the_environment_variable_that_is_documented():
    from ray.serve._private import http_util
    from ray.serve.config import HTTPOptions

    path = "ranker.serving.proxy:middlewares"
    with mock.patch.object(http_util, "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", path):
        options = http_util.configure_http_middlewares(HTTPOptions())
    assert [middleware.cls for middleware in options.middlewares] == [ProxyGuard]
    constants = importlib.import_module("ray.serve._private.constants")
    assert hasattr(constants, "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"), os.environ
