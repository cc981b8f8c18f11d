"""Requests that nobody thought of, made from the OpenAPI document: no 500, and every answer keeps its shape.

Bodies are drawn from each route's own schema, then broken: values of other types, keys missing, null, or unknown.
"""

import json
import math
from typing import Any

import jsonschema
import pytest
from fastapi.testclient import TestClient

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from ranker.serving.calls import Backend, Neighbour, Scored  # noqa: E402
from ranker.serving.index_worker import Changed  # noqa: E402
from ranker.serving.live_index import Document  # noqa: E402
from ranker.serving.routes import Limits, Service, create_app  # noqa: E402

SMALL = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
ODD = ["", " ", "\x00", "\ud800", "e\u0301", "\U0001f436", "a" * 300, "1e999", "null"]
TEXT = st.text(max_size=8) | st.sampled_from(ODD)
NUMBER = st.integers(-2, 5) | st.sampled_from([2**63, -(2**63), 1e308, 0.5, -0.0, math.inf, math.nan])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


class Method:
    def __init__(self, function: Any) -> None:
        self._function = function

    async def remote(self, *args: Any, **wishes: Any) -> Any:
        return self._function(*args, **wishes)


class Behind:
    """A reranker and a retriever that take everything."""

    score = Method(lambda query, documents, *_, **__: Scored([float(len(d) % 7) - 3 for d in documents], 1, 0.0))
    describe = Method(lambda: {"max_length": 64, "documents": 2})
    retrieve = Method(lambda query, depth: [Neighbour("a", 0.5, "text"), Neighbour("b", 0.25, "more")][:depth])
    change = Method(lambda put, delete: Changed(len(put), 0, len(delete), 2))
    get = Method(lambda doc_id: Document(doc_id, None, "text") if doc_id == "a" else None)


SERVICE = create_app(Service(Backend(Behind(), Behind(), 5.0), "stub", Limits(max_documents=4, max_query_chars=200)))
CLIENT = TestClient(SERVICE, raise_server_exceptions=False)
DOCUMENT = SERVICE.openapi()
ROUTES = [
    (method, path)
    for path, methods in DOCUMENT["paths"].items()
    for method, about in methods.items()
    if "requestBody" in about
]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def fitting(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema allows, as far as its words are known here."""
    schema = resolved(schema)
    if many := schema.get("anyOf") or schema.get("oneOf"):
        return st.one_of([fitting(one) for one in many])
    kind = schema.get("type")
    if kind == "object":
        known = schema.get("properties", {})
        needed = {name: fitting(known[name]) for name in schema.get("required", [])}
        return st.fixed_dictionaries(needed, optional={n: fitting(s) for n, s in known.items() if n not in needed})
    if kind == "array":
        return st.lists(fitting(schema.get("items", {})), min_size=schema.get("minItems", 0), max_size=3)
    if kind == "string":
        return st.text(st.characters(codec="utf-8"), min_size=schema.get("minLength", 0), max_size=20)
    if kind == "integer":
        return st.integers(schema.get("minimum", -5), 4)
    return {"boolean": st.booleans(), "null": st.none(), "number": NUMBER}.get(kind, JSON)


def broken(body: Any) -> st.SearchStrategy[Any]:
    """The body with one thing wrong, or something else altogether."""
    if not isinstance(body, dict) or not body:
        return JSON
    name = st.sampled_from(sorted(body))
    return st.one_of(
        JSON,
        st.tuples(name, JSON).map(lambda pair: {**body, pair[0]: pair[1]}),
        name.map(lambda gone: {key: value for key, value in body.items() if key != gone}),
        name.map(lambda null: {**body, null: None}),
        st.dictionaries(TEXT, JSON, max_size=3).map(lambda more: {**body, **more}),
    )


def body_schema(method: str, path: str) -> dict[str, Any]:
    return DOCUMENT["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]


def send(method: str, path: str, body: Any) -> Any:
    content = json.dumps(body).encode("utf-8", "surrogatepass")  # NaN and lone surrogates too
    return CLIENT.request(method, path, content=content, headers={"content-type": "application/json"})


def assert_as_documented(method: str, path: str, answer: Any) -> None:
    about = DOCUMENT["paths"][path][method]["responses"]
    assert answer.status_code < 500, answer.text
    assert str(answer.status_code) in about, answer.text
    schema = about[str(answer.status_code)]["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), {**schema, "components": DOCUMENT["components"]})


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_what_the_schema_allows_is_answered(method: str, path: str):
    @SMALL
    @given(fitting(body_schema(method, path)))
    def told(body: Any) -> None:
        answer = send(method, path, body)
        assert_as_documented(method, path, answer)
        # Rules that a schema does not say: two lengths that must be alike, and a document that says something.
        assert answer.status_code == 200 or "text_2" in answer.text or "needs a text or a title" in answer.text

    told()


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_what_the_schema_does_not_allow_is_no_500(method: str, path: str):
    @SMALL
    @given(fitting(body_schema(method, path)).flatmap(broken))
    def told(body: Any) -> None:
        assert_as_documented(method, path, send(method, path, body))

    told()


@SMALL
@given(st.binary(max_size=40), st.sampled_from(["application/json", "text/plain", "", "application/json; charset=x"]))
def test_bytes_that_are_no_json_are_no_500(content: bytes, kind: str):
    for method, path in ROUTES:
        answer = CLIENT.request(method, path, content=content, headers={"content-type": kind})
        assert_as_documented(method, path, answer)


@SMALL
@given(st.text(min_size=1, max_size=12), st.sampled_from(["GET", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"]))
def test_paths_that_nobody_thought_of_are_no_500(name: str, method: str):
    from urllib.parse import quote

    for prefix in ("/", "/documents/", "/v1/"):
        answer = CLIENT.request(method, prefix + quote(name.encode("utf-8", "surrogatepass"), safe=""))
        assert answer.status_code < 500


@pytest.mark.clients
def test_schemathesis_finds_nothing():
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_asgi("/openapi.json", SERVICE)

    for operation in schema.get_all_operations():

        @SMALL
        @given(operation.ok().as_strategy())
        def one(case: Any) -> None:
            assert case.call().status_code < 500

        one()
