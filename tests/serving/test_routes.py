import asyncio
import logging
import math
import time

import pytest
from fastapi.testclient import TestClient
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from ranker.serving.calls import Backend, Neighbour, Scored
from ranker.serving.errors import UnknownModelError, WriteError
from ranker.serving.index_worker import Changed
from ranker.serving.keys import load_keys
from ranker.serving.live_index import Document
from ranker.serving.routes import Limits, Service, create_app
from ranker.serving.trace import AGE_HEADER

DOCUMENTS = ["x", "aab", "ab"]  # logits for the query "ab": 0, 3, 2
TEXTS = {"d1": "a dog barks", "d2": "a cat purrs", "d3": "a goldfish eats flakes"}
BODY_KEYS = {"message", "detail", "error", "error_type", "id"}


class Method:
    def __init__(self, function):
        self._function = function

    def remote(self, *args, **wishes):
        return self._function(*args, **wishes)


class StubReranker:
    """The logit of a document is its number of letters that the query has too."""

    names = ["pets-reranker"]

    def __init__(self, error: Exception | None = None, delay: float = 0.0):
        self.error, self.delay, self.calls, self.asked = error, delay, [], []
        self.score, self.describe = Method(self._score), Method(self._describe)

    async def _score(self, query, documents, within_s=None, model=None, max_tokens=None):
        self.calls.append((query, documents))
        self.asked.append((model, max_tokens))
        await asyncio.sleep(self.delay)
        if self.error:
            raise self.error
        logits = [float(sum(c in query for c in text)) for text in documents]
        if model and len(self.names) > 1 and model not in self.names:
            raise UnknownModelError(f"no such model; there are: {', '.join(self.names)}")
        name = model if len(self.names) > 1 and model else self.names[0]
        return Scored(logits, tokens=7 * len(documents), seconds=0.0, model=name)

    async def _describe(self):
        if self.error:
            raise self.error
        return {"engine": "stub", "max_length": 64, "batch_tokens": 8192, "models": self.names}


class StubRetriever:
    """Returns d1, d2, d3 in this order, whatever is asked; documents are kept in a dictionary."""

    def __init__(self, error: Exception | None = None):
        self.retrieve, self.describe = Method(self._retrieve), Method(self._describe)
        self.change, self.get, self.error = Method(self._change), Method(self._get), error
        self.documents = {doc_id: Document(doc_id, None, text) for doc_id, text in TEXTS.items()}

    async def _change(self, put, delete):
        if self.error:
            raise self.error
        replaced = sum(document.doc_id in self.documents for document in put)
        self.documents |= {document.doc_id: document for document in put}
        deleted = sum(self.documents.pop(doc_id, None) is not None for doc_id in delete)
        return Changed(len(put) - replaced, replaced, deleted, len(self.documents))

    async def _get(self, doc_id):
        return self.documents.get(doc_id)

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


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/rerank", {"raw_scores": False, "top_n": 0}, "top_n: Input should be greater than or equal to 1"),
        ("/rerank", {"raw_scores": True, "documents": ["b"] * 4}, "4 is above the limit of 3"),
        ("/infinity/rerank", {"top_n": 0}, "top_n"),
        ("/infinity/rerank", {"documents": ["b"] * 4}, "4 is above"),
    ],
)
def test_infinity_iterates_over_the_detail_of_a_422(path: str, body: dict, said: str):
    answer = client(max_documents=3).post(path, json={"query": "a", "documents": ["b"], **body})
    told = assert_error(answer, 422, "Validation")
    assert told["detail"] == "" and said in told["message"] and told["error"] == told["message"]


def test_infinity_gets_documents_as_strings_and_only_when_asked():
    body = {"query": "ab", "documents": DOCUMENTS, "raw_scores": False}
    assert client().post("/rerank", json=body).json()["results"][0].keys() == {"index", "relevance_score"}
    answer = client().post("/rerank", json={**body, "return_documents": True}).json()
    assert answer["results"][0]["document"] == "aab"
    body = {"query": "ab", "documents": DOCUMENTS, "return_documents": True}  # as LiteLLM sends it, also to vLLM
    assert client().post("/infinity/rerank", json=body).json()["results"][0]["document"] == "aab"


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


def test_the_deadline_counts_what_the_request_waited_for_other_gateways():
    body, reranker = {"query": "a", "texts": ["b"]}, StubReranker()
    late = client(reranker, deadline_s=5).post("/rerank", json=body, headers={AGE_HEADER: "5.001"})
    assert_error(late, 504, "Timeout")
    assert not reranker.calls
    for said in ("4.000", "-9", "nan", "inf", "1e9", ""):  # within the deadline, or nothing that the guard would say
        assert client(reranker, deadline_s=5).post("/rerank", json=body, headers={AGE_HEADER: said}).status_code == 200


def test_scores_of_many_queries_have_one_deadline_for_all_of_them():
    reranker = StubReranker(delay=0.1)
    pairs = {"text_1": [f"q{number}" for number in range(80)], "text_2": ["d"] * 80}
    start = time.perf_counter()
    assert_error(client(reranker, deadline_s=0.35).post("/score", json=pairs), 504, "Timeout")
    assert time.perf_counter() - start < 0.8  # ten waves of eight would take a second
    assert len(reranker.calls) <= 32


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


def test_openapi_names_every_route_its_answers_and_its_errors():
    document = client().get("/openapi.json").json()
    paths = document["paths"]
    assert {
        "/", "/rerank", "/v1/rerank", "/v2/rerank", "/voyage/v1/rerank", "/infinity/rerank", "/score", "/search",
        "/documents",
        "/documents/{doc_id}", "/info", "/health", "/ready", "/v1/models", "/metrics", "/docs",
    } <= paths.keys()  # fmt: skip
    for path, methods in paths.items():
        for about in methods.values():
            assert path == "/metrics" or about["responses"]["200"]["content"], path
            error = about["responses"]["422"]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/ErrorBody"}, path
    assert document["security"] == [{}, {"key": []}]
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_voyage_gets_data_with_documents_as_strings():
    body = {"model": "rerank-2", "query": "ab", "documents": DOCUMENTS, "top_k": None, "truncation": True}
    answer = client().post("/voyage/v1/rerank", json=body).json()
    assert [set(result) for result in answer["data"]] == [{"index", "relevance_score"}] * 3
    assert (answer["object"], answer["usage"]) == ("list", {"total_tokens": 21})
    answer = client().post("/voyage/v1/rerank", json={**body, "top_k": 1, "return_documents": True}).json()
    assert answer["data"] == [{"index": 1, "relevance_score": pytest.approx(sigmoid(3)), "document": "aab"}]


@pytest.mark.parametrize("route", ["/score", "/v1/score"])
def test_vllm_gets_scores_in_the_order_sent(route):
    answer = client().post(route, json={"model": "any", "text_1": "ab", "text_2": DOCUMENTS}).json()
    assert [entry["score"] for entry in answer["data"]] == pytest.approx([0.5, sigmoid(3), sigmoid(2)])
    assert [entry["index"] for entry in answer["data"]] == [0, 1, 2]
    one = client().post(route, json={"text_1": "ab", "text_2": "ab"}).json()
    assert [entry["score"] for entry in one["data"]] == pytest.approx([sigmoid(2)])


def test_scores_of_as_many_queries_as_texts_ask_each_query_once():
    reranker = StubReranker()
    body = {"queries": ["a", "b", "a"], "documents": ["aa", "aab", "b"]}
    answer = client(reranker).post("/score", json=body).json()
    assert [entry["score"] for entry in answer["data"]] == pytest.approx([sigmoid(2), sigmoid(1), 0.5])
    assert reranker.calls == [("a", ["aa", "b"]), ("b", ["aab"])]
    short = client().post("/score", json={"text_1": ["a", "b"], "text_2": ["a"]})
    assert "2 texts and text_2 1" in assert_error(short, 422, "Validation")["message"]


def test_many_queries_do_not_fill_the_queue():
    class Counting(StubReranker):
        now = most = 0

        async def _score(self, query, documents, *args, **wishes):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001)
            self.now -= 1
            if query == "bad":
                raise BackPressureError(num_queued_requests=1, max_queued_requests=1)
            return Scored([0.0], 1, 0.0)

    reranker = Counting()
    queries = [f"q{number}" for number in range(50)]
    assert len(client(reranker).post("/score", json={"text_1": queries, "text_2": ["a"] * 50}).json()["data"]) == 50
    assert reranker.most == 8
    refused = client(Counting()).post("/score", json={"text_1": ["bad", *queries], "text_2": ["a"] * 51})
    assert_error(refused, 429, "Overloaded")


def test_cohere_v1_reads_the_fields_of_objects_that_it_is_told():
    reranker = StubReranker()
    documents = [{"title": "A", "body": "b", "id": 7}, "plain"]
    client(reranker).post("/v1/rerank", json={"query": "q", "documents": documents, "rank_fields": ["title", "body"]})
    assert reranker.calls == [("q", ["title: A\nbody: b", "plain"])]


def test_documents_are_cut_as_cohere_says_and_others_not():
    reranker = StubReranker()
    service, body = client(reranker), {"query": "a", "documents": ["b"]}
    service.post("/v2/rerank", json={**body, "max_tokens_per_doc": 7})
    service.post("/v2/rerank", json={**body, "max_tokens_per_doc": None})
    service.post("/v1/rerank", json=body)
    assert [most for _, most in reranker.asked] == [7, None, None]
    refused = service.post("/v2/rerank", json={**body, "max_tokens_per_doc": 0})
    assert_error(refused, 422, "Validation")


def test_several_models_answer_by_name():
    reranker = StubReranker()
    reranker.names = ["small", "large"]
    service, body = client(reranker, StubRetriever()), {"query": "a", "documents": ["b"]}
    assert [service.post("/v1/rerank", json={**body, **more}).json()["model"] for more in ({}, {"model": "large"})] == [
        "small", "large",
    ]  # fmt: skip
    assert service.post("/search", json={"query": "a", "model": "large"}).json()["model"] == "large"
    told = assert_error(service.post("/v2/rerank", json={**body, "model": "rerank-v3.5"}), 404, "NotFound")
    assert told["message"] == "no such model; there are: small, large"
    assert [model["id"] for model in service.get("/v1/models").json()["data"]] == ["small", "large"]


def test_one_model_answers_to_any_name():
    reranker = StubReranker()
    assert client(reranker).post("/v2/rerank", json={"query": "a", "documents": ["b"], "model": "x"}).status_code == 200


def test_null_texts_are_no_texts():
    answer = client().post("/rerank", json={"query": "ab", "texts": None, "documents": DOCUMENTS}).json()
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]


def test_documents_are_put_read_and_deleted():
    service = client(retriever=StubRetriever())
    documents = [{"doc_id": "d1", "text": "new"}, {"id": "a/b c", "title": "T", "text": "x"}]
    answer = service.post("/documents", json={"documents": documents}).json()
    assert (answer["added"], answer["replaced"], answer["documents"]) == (1, 1, 4)
    assert service.get("/documents/a%2Fb c").json() == {"doc_id": "a/b c", "title": "T", "text": "x"}
    assert service.delete("/documents/a%2Fb c").json()["deleted"] == 1
    assert_error(service.delete("/documents/a%2Fb c"), 404, "NotFound")
    assert_error(service.get("/documents/nobody"), 404, "NotFound")
    gone = service.request("DELETE", "/documents", json={"doc_ids": ["d1", "d2", "nobody"]}).json()
    assert (gone["deleted"], gone["documents"]) == (2, 1)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"documents": [{"text": "no id"}]}, "documents.0.doc_id"),
        ({"documents": [{"doc_id": "d", "text": " ", "title": None}]}, "needs a text or a title"),
        ({"documents": [{"doc_id": "", "text": "x"}]}, "documents.0.doc_id"),
        ({"documents": []}, "documents"),
        ({"documents": [{"doc_id": str(n), "text": "x"} for n in range(4)]}, "4 is above the limit of 3"),
    ],
)
def test_documents_that_cannot_be_taken(body, said):
    service = client(retriever=StubRetriever(), max_documents=3)
    assert said in assert_error(service.post("/documents", json=body), 422, "Validation")["detail"]


def test_documents_that_cannot_be_written_are_503_and_without_an_index_404():
    body = {"documents": [{"doc_id": "d", "text": "x"}]}
    failing = client(retriever=StubRetriever(WriteError("the documents could not be written")))
    assert_error(failing.post("/documents", json=body), 503, "Unhealthy")
    assert_error(client().post("/documents", json=body), 404, "NotFound")


def test_each_key_has_its_own_limits():
    keys = (
        "slow requests_per_minute=1, few max_documents=2 max_query_chars=3 max_body_bytes=200,"
        "reader write=no, some documents_per_minute=5, all"
    )
    service = client(retriever=StubRetriever(), keys={"RANKER_API_KEYS": keys})

    def post(key, body, route="/rerank"):
        return service.post(route, json=body, headers={"authorization": f"Bearer {key}"})

    body = {"query": "a", "texts": ["a", "b", "c"]}
    assert post("all", body).status_code == post("slow", body).status_code == 200
    refused = post("slow", body)
    assert "1 requests a minute" in assert_error(refused, 429, "Overloaded")["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert "limit of 2" in assert_error(post("few", body), 422, "Validation")["message"]
    assert_error(post("few", {"query": "abcd", "texts": ["a"]}), 422, "Validation")
    assert_error(post("few", {"query": "a", "texts": ["a" * 300]}), 413, "PayloadTooLarge")
    assert [post("some", body).status_code for _ in range(2)] == [200, 429]
    documents = {"documents": [{"doc_id": "d", "text": "x"}]}
    assert_error(post("reader", documents, "/documents"), 403, "Forbidden")
    assert post("all", documents, "/documents").status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_need_no_key_and_load_nothing_from_elsewhere(path):
    answer = client(keys={"RANKER_API_KEYS": "one"}).get(path)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "//" not in answer.text.replace("http://www.w3.org/2000/svg", "")
