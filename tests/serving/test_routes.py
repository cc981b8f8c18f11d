import asyncio
import logging
import math

import pytest
from fastapi.testclient import TestClient
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from ranker.serving.calls import Backend, Neighbour, Scored
from ranker.serving.routes import Limits, Service, create_app
from ranker.serving.security import load_keys

DOCUMENTS = ["x", "aab", "ab"]  # logits for the query "ab": 0, 3, 2
TEXTS = {"d1": "a dog barks", "d2": "a cat purrs", "d3": "a goldfish eats flakes"}
BODY_KEYS = {"message", "detail", "error", "error_type", "id"}


class Method:
    def __init__(self, function):
        self._function = function

    def remote(self, *args):
        return self._function(*args)


class StubReranker:
    """The logit of a document is its number of letters that the query has too."""

    def __init__(self, error: Exception | None = None, delay: float = 0.0):
        self.error, self.delay, self.calls = error, delay, []
        self.score, self.describe = Method(self._score), Method(self._describe)

    async def _score(self, query, documents, within_s=None):
        self.calls.append((query, documents))
        await asyncio.sleep(self.delay)
        if self.error:
            raise self.error
        logits = [float(sum(c in query for c in text)) for text in documents]
        return Scored(logits, tokens=7 * len(documents), seconds=0.0)

    async def _describe(self):
        if self.error:
            raise self.error
        return {"engine": "stub", "max_length": 64, "batch_tokens": 8192}


class StubRetriever:
    """Returns d1, d2, d3 in this order, whatever is asked."""

    def __init__(self):
        self.retrieve, self.describe = Method(self._retrieve), Method(self._describe)

    async def _retrieve(self, query, k):
        return [Neighbour(doc_id, 1.0 - place / 10, text) for place, (doc_id, text) in enumerate(TEXTS.items())][:k]

    async def _describe(self):
        return {"documents": len(TEXTS)}


def client(reranker=None, retriever=None, deadline_s=5.0, keys=None, **limits) -> TestClient:
    backend = Backend(reranker or StubReranker(), retriever, deadline_s)
    service = Service(backend, "pets-reranker", Limits(**limits), load_keys(environment=keys or {}))
    return TestClient(create_app(service), raise_server_exceptions=False)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def assert_error(answer, status: int, kind: str) -> dict:
    body = answer.json()
    assert answer.status_code == status, body
    assert body.keys() == BODY_KEYS
    assert all(isinstance(value, str) for value in body.values())
    assert body["error_type"] == kind
    assert body["id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return body


def test_tei_gets_a_bare_list_best_first():
    answer = client().post("/rerank", json={"query": "ab", "texts": DOCUMENTS, "truncate": True, "top_n": 1})
    assert answer.status_code == 200
    assert answer.json() == [
        {"index": 1, "score": pytest.approx(sigmoid(3))},
        {"index": 2, "score": pytest.approx(sigmoid(2))},
        {"index": 0, "score": 0.5},
    ]


def test_tei_raw_scores_and_texts():
    body = {"query": "ab", "texts": DOCUMENTS, "raw_scores": True, "return_text": True}
    assert client().post("/rerank", json=body).json()[0] == {"index": 1, "score": 3.0, "text": "aab"}


@pytest.mark.parametrize("route", ["/rerank", "/v1/rerank"])
def test_jina_gets_results_with_documents_as_objects(route):
    answer = client().post(route, json={"model": "any", "query": "ab", "documents": DOCUMENTS, "top_n": 2}).json()
    assert [result["index"] for result in answer["results"]] == [1, 2]
    assert answer["results"][0] == {
        "index": 1,
        "relevance_score": pytest.approx(sigmoid(3)),
        "document": {"text": "aab"},
    }
    assert answer["model"] == "pets-reranker"
    assert answer["usage"] == {"prompt_tokens": 21, "total_tokens": 21}


def test_infinity_gets_documents_as_strings_and_only_when_asked():
    body = {"query": "ab", "documents": DOCUMENTS, "raw_scores": False}
    assert client().post("/rerank", json=body).json()["results"][0].keys() == {"index", "relevance_score"}
    answer = client().post("/rerank", json={**body, "return_documents": True}).json()
    assert answer["results"][0]["document"] == "aab"


def test_cohere_v2_accepts_nulls_and_objects():
    documents = [{"text": text, "id": 5} for text in DOCUMENTS]
    body = {"model": "rerank-v3.5", "query": "ab", "documents": documents, "max_tokens_per_doc": None, "top_n": None}
    answer = client().post("/v2/rerank", json=body).json()
    assert [(result["index"], set(result)) for result in answer["results"]] == [
        (place, {"index", "relevance_score"}) for place in (1, 2, 0)
    ]
    assert answer["meta"]["api_version"] == {"version": "2"}


def test_ties_keep_the_order_that_was_sent():
    answer = client().post("/rerank", json={"query": "a", "texts": ["a", "x", "a"]}).json()
    assert [result["index"] for result in answer] == [0, 2, 1]


def test_no_documents_is_an_empty_answer():
    assert client().post("/rerank", json={"query": "a", "texts": []}).json() == []
    assert client().post("/v2/rerank", json={"query": "a", "documents": []}).json()["results"] == []


def test_search_shows_both_orders():
    answer = client(retriever=StubRetriever()).post("/search", json={"query": "goldfish", "top_k": 2}).json()
    first, second = answer["results"]
    # Letters of "goldfish": goldfish eats flakes has 8 + 1 + 3 = 12, a dog barks 4, a cat purrs 1.
    assert (first["doc_id"], first["rank"], first["retrieval_rank"], first["retrieval_score"]) == ("d3", 1, 3, 0.8)
    assert (second["doc_id"], second["retrieval_rank"], second["text"]) == ("d1", 1, "a dog barks")
    assert answer["times"].keys() == {"retrieve", "rerank"}


def test_search_reranks_as_many_neighbours_as_asked():
    reranker = StubReranker()
    body = {"query": "dog", "num_candidates": 2, "return_documents": False}
    answer = client(reranker, StubRetriever()).post("/search", json=body).json()
    assert reranker.calls == [("dog", ["a dog barks", "a cat purrs"])]
    assert [result["text"] for result in answer["results"]] == [None, None]


def test_search_without_an_index_says_so():
    body = assert_error(client().post("/search", json={"query": "dog"}), 404, "NotFound")
    assert "no index" in body["message"]


@pytest.mark.parametrize(
    ("route", "body", "said"),
    [
        ("/rerank", {"texts": ["a"]}, "query: Field required"),
        ("/rerank", {"query": "a"}, "documents: Field required"),
        ("/rerank", {"query": "a", "documents": ["b", 5]}, "documents.1"),
        ("/rerank", {"query": "", "documents": ["b"]}, "query"),
        ("/rerank", ["a"], ""),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
        ("/v2/rerank", {"query": "a", "documents": "b"}, "documents"),
        ("/search", {"query": "a", "top_k": "many"}, "top_k"),
    ],
)
def test_what_cannot_be_read_is_422_in_the_one_shape(route, body, said):
    assert said in assert_error(client(retriever=StubRetriever()).post(route, json=body), 422, "Validation")["detail"]


def test_broken_json_is_422():
    answer = client().post("/rerank", content=b'{"query": ', headers={"content-type": "application/json"})
    assert_error(answer, 422, "Validation")


def test_lone_surrogates_are_read_as_replacement_characters():
    body = b'{"query": "a\\ud800", "documents": ["b\\udc00"], "return_documents": true}'
    answer = client().post("/rerank", content=body, headers={"content-type": "application/json"})
    assert answer.json()["results"][0]["document"] == {"text": "b\ufffd"}


def test_too_much_is_refused_before_anything_is_scored():
    reranker = StubReranker()
    small = client(reranker, StubRetriever(), max_documents=2, max_query_chars=3, max_body_bytes=200)
    too_many = assert_error(small.post("/rerank", json={"query": "a", "texts": DOCUMENTS}), 422, "Validation")
    assert "3 is above the limit of 2" in too_many["message"]
    assert_error(small.post("/search", json={"query": "a", "num_candidates": 3}), 422, "Validation")
    assert_error(small.post("/rerank", json={"query": "abcd", "texts": ["a"]}), 422, "Validation")
    assert_error(small.post("/rerank", json={"query": "a", "texts": ["a" * 300]}), 413, "PayloadTooLarge")
    chunks = (b"x" * 50 for _ in range(5))
    assert_error(small.post("/rerank", content=chunks), 413, "PayloadTooLarge")
    assert reranker.calls == []


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BackPressureError(num_queued_requests=64, max_queued_requests=64), 429, "Overloaded"),
        (RayActorError(), 503, "Unhealthy"),
        (ValueError("the secret document"), 500, "Backend"),
    ],
)
def test_failures_behind_the_gateway(error, status, kind, caplog):
    with caplog.at_level(logging.DEBUG):
        answer = client(StubReranker(error)).post("/rerank", json={"query": "a", "texts": ["the secret document"]})
    assert_error(answer, status, kind)
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    assert "secret" not in answer.text + caplog.text


def test_deadline_is_504_and_the_call_is_given_up():
    slow = client(StubReranker(delay=5), deadline_s=0.05)
    assert_error(slow.post("/v2/rerank", json={"query": "a", "documents": ["b"]}), 504, "Timeout")


def test_unknown_routes_and_methods_have_the_same_body():
    assert_error(client().get("/nowhere"), 404, "NotFound")
    assert_error(client().get("/rerank"), 405, "MethodNotAllowed")


def test_keys_are_asked_for_everywhere_but_at_the_probes():
    service = client(keys={"RANKER_API_KEYS": "one, two"})
    body = {"query": "a", "texts": ["a"]}
    answer = service.post("/rerank", json=body)
    assert_error(answer, 401, "Unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert_error(service.get("/info", headers={"authorization": "Bearer on"}), 401, "Unauthorized")
    assert service.post("/rerank", json=body, headers={"authorization": "Bearer two"}).status_code == 200
    assert service.post("/rerank", json=body, headers={"authorization": "one"}).status_code == 200
    assert [service.get(path).status_code for path in ("/health", "/ready", "/openapi.json")] == [200, 200, 200]


def test_request_id_of_the_client_comes_back_unless_it_is_odd():
    service = client()
    assert service.get("/health", headers={"x-request-id": "trace-7"}).headers["x-request-id"] == "trace-7"
    odd = service.get("/health", headers={"x-request-id": "a b" * 99}).headers["x-request-id"]
    assert len(odd) == 32


def test_service_says_what_it_is():
    service = client(retriever=StubRetriever())
    info = service.get("/info").json()
    assert (info["model_id"], info["max_input_length"], info["max_client_batch_size"]) == ("pets-reranker", 64, 1000)
    assert info["index"] == {"documents": 3}
    assert [model["id"] for model in service.get("/v1/models").json()["data"]] == ["pets-reranker"]
    assert service.get("/ready").json() == {"status": "ready"}


def test_not_ready_while_a_deployment_does_not_answer():
    assert_error(client(StubReranker(RayActorError())).get("/ready"), 503, "Unhealthy")


def test_openapi_names_every_route():
    paths = client().get("/openapi.json").json()["paths"]
    assert {
        "/rerank",
        "/v1/rerank",
        "/v2/rerank",
        "/search",
        "/info",
        "/health",
        "/ready",
        "/v1/models",
    } <= paths.keys()
