"""What is seen of a service from outside: headers, metrics, log lines. Never a word of a request."""

import asyncio
import json
import logging
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from ranker.serving.batching import BatchRecord
from ranker.serving.calls import Backend, Neighbour, Scored
from ranker.serving.metrics import EngineMetrics, GatewayMetrics, RetrieverMetrics, exposition, families
from ranker.serving.observation import gather
from ranker.serving.routes import Service, create_app

DASHBOARD = Path(__file__).parents[2] / "serve_configs" / "grafana.json"


class Method:
    def __init__(self, function):
        self.remote = function


class Reranker:
    def __init__(self, error: Exception | None = None):
        self.error, self.asked = error, 0
        self.score = Method(self._score)

    async def _score(self, query, documents, *options):
        self.asked += 1
        if self.error:
            raise self.error
        return Scored([0.0] * len(documents), 5, 0.6, queued=0.25, tokenised=0.05, inferred=0.3)


class Retriever:
    def __init__(self):
        self.retrieve = Method(self._retrieve)

    async def _retrieve(self, query, k):
        return [Neighbour("d1", 0.5, "a secret document")]


def service(reranker: Reranker | None = None) -> TestClient:
    backend = Backend(reranker or Reranker(), Retriever(), 5.0)
    return TestClient(create_app(Service(backend, "pets")), raise_server_exceptions=False)


def samples(client: TestClient) -> dict[tuple, float]:
    """(name, labels without those of the process) -> value."""
    text = client.get("/metrics").text
    return {
        (sample.name, *sorted(v for k, v in sample.labels.items() if k not in ("deployment", "replica"))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_headers_say_where_the_time_went():
    answer = service().post("/rerank", json={"query": "q", "texts": ["d"]})
    assert {name: answer.headers[f"x-{name}-time"] for name in ("queue", "tokenise", "inference")} == {
        "queue": "0.250000", "tokenise": "0.050000", "inference": "0.300000"
    }  # fmt: skip
    assert 0 < float(answer.headers["x-total-time"]) < 5
    assert "x-retrieve-time" in service().post("/search", json={"query": "q"}).headers
    assert "x-queue-time" not in service().get("/health").headers


@pytest.mark.parametrize(
    ("route", "body", "dialect"),
    [
        ("/rerank", {"query": "q", "texts": ["d"]}, "tei"),
        ("/rerank", {"query": "q", "documents": ["d"], "raw_scores": False}, "infinity"),
        ("/v1/rerank", {"query": "q", "documents": ["d"]}, "jina"),
        ("/v2/rerank", {"query": "q", "documents": ["d"]}, "cohere"),
        ("/search", {"query": "q"}, "search"),
    ],
)
def test_requests_are_counted_by_route_dialect_code_and_model(route: str, body: dict, dialect: str):
    client = service()
    assert [client.post(route, json=body).status_code for _ in range(2)] == [200, 200]
    found = samples(client)
    assert found["ranker_requests_total", *sorted((route, dialect, "200", "pets"))] == 2
    assert found["ranker_request_seconds_count", route] == 2
    assert found["ranker_request_documents_sum",] == 2


def test_refused_and_unknown_requests_are_counted_and_strangers_make_no_series():
    client = service()
    client.post("/rerank", json={"query": "q"})
    for number in range(50):
        client.get(f"/wp-admin/{number}")
    found = samples(client)
    assert found["ranker_requests_total", *sorted(("/rerank", "", "422", ""))] == 1
    assert found["ranker_requests_total", *sorted(("other", "", "404", ""))] == 50
    assert len([key for key in found if key[0] == "ranker_requests_total"]) <= 3


def test_a_full_queue_refuses_the_next_requests_without_reading_them():
    full = Reranker(BackPressureError(num_queued_requests=1, max_queued_requests=1))
    client = service(full)
    answers = [client.post("/rerank", content=b"not even JSON" if n else b'{"query": "q", "texts": ["d"]}',
                           headers={"content-type": "application/json"}) for n in range(2)]  # fmt: skip
    assert [answer.status_code for answer in answers] == [429, 429]
    assert all(answer.headers["retry-after"] == "1" for answer in answers)
    assert answers[1].json()["error_type"] == "Overloaded"
    assert full.asked == 1
    assert client.get("/health").status_code == 200  # which needs no queue
    assert samples(client)["ranker_shed_requests_total",] == 1


def test_one_log_line_a_request_with_its_fields_and_none_of_its_text(caplog):
    with caplog.at_level(logging.INFO):
        body = {"query": "secret", "documents": ["secret"] * 3}
        service().post("/v1/rerank?key=secret", json=body, headers={"x-request-id": "trace-7"})
        service().get("/health")
    [record] = [record for record in caplog.records if record.name == "ray.serve.ranker"]
    assert re.fullmatch(r"POST /v1/rerank 200 [\d.]+ ms", record.getMessage())
    fields = {
        name: getattr(record, name)
        for name in ("http_request_id", "http_route", "http_status", "dialect", "model", "num_documents", "queue_s")
    }
    assert fields == {
        "http_request_id": "trace-7", "http_route": "/v1/rerank", "http_status": 200, "dialect": "jina",
        "model": "pets", "num_documents": 3, "queue_s": 0.25,
    }  # fmt: skip
    assert "secret" not in str([vars(record) for record in caplog.records if not record.name.startswith("http")])


def test_the_log_line_is_json_where_serve_says_so():
    from ray._common.formatters import JSONFormatter

    record = logging.makeLogRecord({"name": "ray.serve.ranker", "msg": "POST /rerank 200", "http_status": 200,
                                    "queue_s": 0.25})  # fmt: skip
    line = json.loads(JSONFormatter().format(record))
    assert (line["message"], line["http_status"], line["queue_s"]) == ("POST /rerank 200", 200, 0.25)


def test_a_client_that_goes_away_is_counted_as_499():
    class Slow(Reranker):
        async def _score(self, query, documents, *options):
            asked.set()
            await asyncio.sleep(60)

    app, asked = create_app(Service(Backend(Slow(), None, 90.0), "pets")), asyncio.Event()

    async def story():
        body = b'{"query": "q", "texts": ["d"]}'

        async def receive():
            return {"type": "http.request", "body": body}

        async def send(message):
            raise AssertionError("nobody listens")

        scope = {
            "type": "http", "method": "POST", "path": "/rerank", "raw_path": b"/rerank", "query_string": b"",
            "headers": [(b"content-type", b"application/json")], "root_path": "", "scheme": "http",
            "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
        }  # fmt: skip
        request = asyncio.create_task(app(scope, receive, send))
        await asyncio.wait_for(asked.wait(), 20)
        request.cancel()  # as Ray Serve does
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(story())
    found = samples(TestClient(app))
    assert found["ranker_requests_total", *sorted(("/rerank", "tei", "499", "pets"))] == 1
    assert found["ranker_requests_in_flight",] == 1  # the scrape itself


def test_batches_are_counted_with_their_padding():
    metrics = EngineMetrics()
    metrics.note_batch(BatchRecord(items=3, tokens=150, padded=180, seconds=0.2))
    metrics.note_batch(BatchRecord(items=1, tokens=20, padded=20, seconds=0.1))
    found = {sample.name: sample.value for family in metrics.registry.collect() for sample in family.samples}
    assert (found["ranker_pairs_total"], found["ranker_tokens_total"], found["ranker_padded_tokens_total"]) == (
        4, 170, 200
    )  # fmt: skip
    assert found["ranker_batch_seconds_sum"] == pytest.approx(0.3)


def test_series_of_several_replicas_stand_in_one_family():
    first, second = EngineMetrics(), EngineMetrics()
    first.pairs.inc(3)
    second.pairs.inc(4)
    parts = [families(first.registry, "Reranker", "a"), families(second.registry, "Reranker", "b")]
    text = exposition(parts).decode()
    assert text.count("# TYPE ranker_pairs_total counter") == 1
    found = {s.labels["replica"]: s.value for f in text_string_to_metric_families(text) for s in f.samples
             if s.name == "ranker_pairs_total"}  # fmt: skip
    assert found == {"a": 3, "b": 4}
    assert "_created" not in text


def names_of_metrics() -> set[str]:
    """Names as Prometheus stores them."""
    found = set()
    for registry in (EngineMetrics().registry, GatewayMetrics().registry, RetrieverMetrics().registry):
        for family in registry.collect():
            suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[family.type]
            found |= {family.name + suffix for suffix in suffixes}
    return found


def expressions(panel: dict) -> list[str]:
    inner = [found for child in panel.get("panels", []) for found in expressions(child)]
    return [target["expr"] for target in panel.get("targets", [])] + inner


def test_every_query_of_the_dashboard_names_metrics_that_exist():
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [query for panel in dashboard["panels"] for query in expressions(panel)]
    used = {name for query in queries for name in re.findall(r"\branker_[a-z_]+\b", query)}
    assert len(queries) >= 12 and used
    assert used <= names_of_metrics()
    # What an operator must see is there.
    for name in ("requests_total", "request_seconds_bucket", "queue_seconds_bucket", "padded_tokens_total",
                 "pending_tokens", "truncated_pairs_total", "refused_requests_total", "retries_total"):  # fmt: skip
        assert f"ranker_{name}" in used, name


def test_labels_that_the_dashboard_groups_by_exist():
    labels = {"deployment", "replica", "route", "dialect", "code", "model", "le"}
    text = DASHBOARD.read_text()
    grouped = {label.strip() for found in re.findall(r"by \(([^)]*)\)", text) for label in found.split(",")}
    assert grouped <= labels and "code" in grouped


def test_a_deployment_without_a_replica_is_left_out_of_the_metrics():
    class Gone:
        def broadcast(self, method):
            raise DeploymentUnavailableError(DeploymentID(name="Retriever"))

    class There:
        def broadcast(self, method):
            return self

        async def results_async(self, **options):
            return [["families"]]

    assert asyncio.run(gather([Gone(), There()])) == [["families"]]
