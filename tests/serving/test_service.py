"""The whole chain on Ray Serve: a tiny reranker and an index of the pets."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
import yaml

ROOT = Path(__file__).parents[2]
QUESTION = "which animal guards a house"


class Client:
    def __init__(self, port: int):
        self.address = f"http://127.0.0.1:{port}"

    def __call__(self, path: str, body: object = None) -> tuple[int, dict, object]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.address + path, data=data, headers={"content-type": "application/json"})
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, dict(answer.headers), json.load(answer)
        except HTTPError as error:
            return error.code, dict(error.headers), json.load(error)

    def wait(self, process: subprocess.Popen, seconds: float) -> bool:
        """Until the service is ready; False where its process ends or the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and process.poll() is None:
            try:
                if self("/ready")[0] == 200:
                    return True
            except (URLError, ConnectionError, ValueError):  # not listening yet, or Ray's own text answer
                pass
            time.sleep(0.3)
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def service(ray_cluster, experiment: Path) -> Iterator[Client]:
    from ray import serve

    from ranker.serving import ServeArgs, build

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build(ServeArgs(experiment=str(experiment))), name="pets", route_prefix="/")
    yield Client(port)
    serve.shutdown()


def oracle(experiment: Path, documents: list[str]) -> list[float]:
    from ranker.config import ScoringConfig, load_experiment
    from ranker.scoring.scorer import load_scorer, probabilities

    scorer = load_scorer(load_experiment(experiment).serve.reranker, ScoringConfig(precision="fp32"))
    return probabilities(scorer.score([(QUESTION, document) for document in documents])).tolist()


def test_every_dialect_answers_with_the_scores_of_the_engine(service: Client, experiment: Path):
    documents = ["A dog barks at strangers.", "A cat purrs.", "A goldfish lives in cold fresh water and eats flakes."]
    expected = oracle(experiment, documents)
    best_first = sorted(range(3), key=lambda place: -expected[place])
    status, _, tei = service("/rerank", {"query": QUESTION, "texts": documents})
    assert (status, [result["index"] for result in tei]) == (200, best_first)
    assert [result["score"] for result in tei] == pytest.approx([expected[place] for place in best_first], abs=1e-5)
    for route in ("/rerank", "/v1/rerank", "/v2/rerank"):
        answer = service(route, {"query": QUESTION, "documents": documents, "top_n": 2})[2]
        assert [result["index"] for result in answer["results"]] == best_first[:2]
        assert answer["results"][0]["relevance_score"] == pytest.approx(max(expected), abs=1e-5)


def test_search_is_the_retriever_then_the_reranker(service: Client, experiment: Path):
    from ranker.retrieval.retriever import Retriever

    index = experiment.parent / "runs" / "index"
    [neighbours] = Retriever(index).retrieve([QUESTION], 5)
    body = {"query": QUESTION, "top_k": 3, "num_candidates": 5}
    results = service("/search", body)[2]["results"]
    retrieval_order = {doc_id: place for place, (doc_id, _) in enumerate(neighbours, start=1)}
    assert all(result["retrieval_rank"] == retrieval_order[result["doc_id"]] for result in results)
    assert [result["rank"] for result in results] == [1, 2, 3]
    scores = oracle(experiment, [result["text"] for result in results])
    assert [result["score"] for result in results] == pytest.approx(scores, abs=1e-5)
    assert scores == sorted(scores, reverse=True)


def test_requests_at_once_do_not_get_each_others_scores(service: Client):
    bodies = [{"query": f"pet number {n}", "texts": ["a" * (n + 1), "dog " * n, "cat"]} for n in range(24)]
    alone = [service("/rerank", body)[2] for body in bodies]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda body: service("/rerank", body)[2], bodies))
    for one, other in zip(alone, together, strict=True):
        by_index = {result["index"]: result["score"] for result in other}
        assert [result["score"] for result in one] == pytest.approx([by_index[r["index"]] for r in one], abs=1e-5)


def test_info_errors_and_truncation_through_the_proxy(service: Client):
    info = service("/info")[2]
    assert (info["model_id"], info["max_input_length"], info["index"]["documents"]) == ("pets", 64, 10)
    long = service("/v1/rerank", {"query": QUESTION, "documents": ["a dog " * 500]})[2]
    assert long["usage"]["total_tokens"] == 64
    status, headers, body = service("/rerank", {"query": QUESTION})
    assert (status, body["id"]) == (422, headers["x-request-id"])
    assert service("/nowhere")[2]["error_type"] == "NotFound"


# What a shell starts in the background ignores Ctrl-C, and so does all that it starts: here it must count.
LISTENING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def stop(process: subprocess.Popen) -> int:
    """Its exit status after Ctrl-C; one that does not listen is killed, so that no test leaves it behind."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def serve_run(folder: Path, experiment: Path, log: Path, **changes: object) -> tuple[subprocess.Popen, Client]:
    """``serve run`` of the shipped local.yaml on another port and experiment, in a cluster of its own."""
    config = yaml.safe_load((ROOT / "serve_configs" / "local.yaml").read_text())
    port = free_port()
    config["http_options"].update(port=port, host=changes.get("host", "127.0.0.1"))
    config["applications"][0]["args"]["experiment"] = str(experiment)
    config["applications"][0]["deployments"][2].update(changes.get("reranker", {}))
    config.update(changes.get("top", {}))
    (folder / "local.yaml").write_text(yaml.safe_dump(config))
    keep = {name: value for name, value in os.environ.items() if not name.startswith("RANKER_API_KEYS")}
    environment = {**keep, "RAY_ADDRESS": "local", "RAY_TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    serve = str(Path(sys.executable).with_name("serve"))
    command = [sys.executable, "-c", LISTENING, serve, "run", "local.yaml"]
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    return process, Client(port)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Ray's sockets live below it, and their names may have about 100 characters."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="rsv-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


def when_there_is_a_place(ask: Callable[[], int]) -> int:
    """The status that is not 429: on a busy machine the gateway's own questions can hold the only two places."""
    deadline = time.monotonic() + 60
    while (status := ask()) == 429 and time.monotonic() < deadline:
        time.sleep(0.3)
    return status


@pytest.mark.slow
def test_serve_run_answers_leaves_a_trace_sheds_load_in_json_and_stops(
    experiment: Path, short_folder: Path, tmp_path: Path
):
    narrow = {"max_ongoing_requests": 1, "max_queued_requests": 1}
    narrow["autoscaling_config"] = {"max_replicas": 1, "target_ongoing_requests": 1}
    tracing = {"tracing_config": {"enabled": True, "exporter_import_path": "", "sampling_ratio": 1.0}}
    process, client = serve_run(short_folder, experiment, tmp_path / "log", reranker=narrow, top=tracing)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    try:
        assert client.wait(process, 120), (tmp_path / "log").read_text()[-3000:]
        assert when_there_is_a_place(lambda: client("/search", {"query": QUESTION})[0]) == 200
        data = json.dumps({"query": QUESTION, "texts": ["xylophone secret"] * 3}).encode()
        headers = {"content-type": "application/json", "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}

        def traced() -> int:
            try:
                with urlopen(Request(client.address + "/rerank", data, headers), timeout=60) as answer:
                    return answer.status
            except HTTPError as error:
                return error.code

        assert when_there_is_a_place(traced) == 200
        secret = {"query": QUESTION, "texts": ["xylophone secret " * 40] * 1000}
        with ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(lambda _: client("/rerank", secret), range(12)))
        statuses = {status for status, _, _ in answers}
        assert statuses == {200, 429}, statuses
        refused = [(headers, body) for status, headers, body in answers if status == 429]
        assert all(headers["retry-after"] == "1" and body["error_type"] == "Overloaded" for headers, body in refused)
    finally:
        status = stop(process)
    assert status == 0
    assert "xylophone" not in (tmp_path / "log").read_text()
    assert_traced(short_folder, trace_id)


def assert_traced(folder: Path, trace_id: str) -> None:
    """The request of three documents went through gateway and reranker, and no text of any request was written."""
    files = list(folder.glob("ray/session_2*/logs/serve/spans/*"))
    spans = {file.name: file.read_text() for file in files}
    hops = {hop: text for hop in ("Gateway", "Reranker") for name, text in spans.items() if hop in name}
    assert hops.keys() == {"Gateway", "Reranker"}, spans.keys()
    assert all(trace_id in text for text in hops.values())
    assert all('"ranker.num_documents": 3' in text for text in hops.values())
    assert "xylophone" not in "".join(spans.values())


@pytest.mark.slow
def test_serve_run_refuses_an_open_port_without_a_key(experiment: Path, short_folder: Path, tmp_path: Path):
    process, _ = serve_run(short_folder, experiment, tmp_path / "log", host="0.0.0.0")
    try:
        end = time.monotonic() + 90
        while "no API key is set" not in (tmp_path / "log").read_text() and time.monotonic() < end:
            time.sleep(0.5)
        assert "SecurityError" in (tmp_path / "log").read_text()
    finally:
        stop(process)
