"""Models, index and documents change under load, on Ray Serve with two retrievers: nothing is lost."""

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

pytestmark = pytest.mark.slow
QUERY = "which animal guards a house"
DOCUMENTS = ["A dog barks.", "A cat purrs.", "A goldfish eats flakes.", "A parrot talks."]


class Service:
    """The shipped application, deployed as ``serve deploy`` does it, and again with other settings."""

    def __init__(self, experiment: Path, models: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.runs = experiment.parent / "runs"
        self.settings: dict[str, dict[str, Any]] = {
            "Reranker": {"models": models},
            "Retriever": {"index": str(self.runs / "index"), "corpus": str(self.runs / "data")},
        }
        self.experiment = str(experiment)

    def deploy(self) -> None:
        from ray import serve
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        small = {"ray_actor_options": {"num_cpus": 0.1}, "graceful_shutdown_timeout_s": 40}
        application = {
            "name": "changes",
            "route_prefix": "/",
            "import_path": "ranker.serving.app:build",
            "args": {"experiment": self.experiment, "deadline_s": 25},
            "deployments": [
                {"name": "Gateway", **small},
                {"name": "Reranker", **small, "num_replicas": 1, "user_config": self.settings["Reranker"]},
                {"name": "Retriever", **small, "num_replicas": 2, "user_config": self.settings["Retriever"]},
            ],
        }
        serve.start(http_options={"host": "127.0.0.1", "port": self.port, "request_timeout_s": 30})
        config = {"http_options": {"host": "127.0.0.1", "port": self.port}, "applications": [application]}
        _get_global_client().deploy_apps(ServeDeploySchema.model_validate(config))

    def change(self, deployment: str, settings: dict[str, Any]) -> None:
        self.settings[deployment] = settings
        self.deploy()

    def __call__(self, path: str, body: object = None, method: str | None = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        address, kind = f"http://127.0.0.1:{self.port}{path}", {"content-type": "application/json"}
        try:
            with urlopen(Request(address, data, kind, method=method), timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def is_ready(self) -> bool:
        try:
            return self("/ready")[0] == 200
        except (OSError, ValueError):
            return False

    def scores(self, model: str | None = None) -> tuple[float, ...]:
        status, answer = self("/rerank", {"query": QUERY, "texts": DOCUMENTS, "model": model})
        assert status == 200, answer
        by_place = {result["index"]: round(result["score"], 4) for result in answer}
        return tuple(by_place[place] for place in range(len(DOCUMENTS)))

    def found(self, query: str) -> list[str]:
        status, answer = self("/search", {"query": query, "top_k": 30, "num_candidates": 30})
        assert status == 200, answer
        return [result["doc_id"] for result in answer["results"]]


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


@contextmanager
def load(ask: Callable[[], Any], clients: int = 4) -> Iterator[list[Any]]:
    """Asks from several threads until the block ends; what was answered. An error in a thread is one of the test."""
    answers: list[Any] = []
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            answers.append(ask())
            time.sleep(0.02)  # what is changed needs the cores too

    with ThreadPoolExecutor(clients) as threads:
        running = [threads.submit(run) for _ in range(clients)]
        try:
            yield answers
        finally:
            stop.set()
            for one in running:  # its error says more than that somebody waited too long for it
                one.result()


@pytest.fixture(scope="module")
def service(ray_cluster, experiment: Path, tiny_reranker: str) -> Iterator[Service]:
    from ray import serve

    deployed = Service(experiment, {"pets": tiny_reranker})
    deployed.deploy()
    wait_for(deployed.is_ready)
    yield deployed
    serve.shutdown()


def change_of(service: Service, part: str) -> str:
    return service("/info")[1][part]["change"]


def near(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one == pytest.approx(other, abs=2e-4)


def test_a_model_is_swapped_under_load_refused_and_swapped_back(
    service: Service, tiny_reranker: str, other_reranker: str, tmp_path: Path
):
    old = service.scores()
    with load(service.scores) as answers:
        wait_for(lambda: len(answers) > 10)
        service.change("Reranker", {"models": {"pets": other_reranker, "former": tiny_reranker}})
        wait_for(lambda: not near(answers[-1], old))
        new = answers[-1]
        assert new == pytest.approx([1 - score for score in old], abs=2e-3)
        assert near(service.scores("former"), old)
        assert service("/v2/rerank", {"query": "q", "documents": ["d"], "model": "none"})[0] == 404
        # A folder without a model: what serves goes on, and says why.
        service.change("Reranker", {"models": {"pets": str(tmp_path)}})
        wait_for(lambda: "config.json" in change_of(service, "reranker"))
        count = len(answers)
        wait_for(lambda: len(answers) > count + 10)
        assert near(answers[-1], new)
        service.change("Reranker", {"models": {"pets": tiny_reranker}})
        wait_for(lambda: near(answers[-1], old))
        assert change_of(service, "reranker") == "done"
    assert [answer for answer in answers if not near(answer, old) and not near(answer, new)] == []


def retrievers() -> list[int]:
    """Process ids of the retrievers of this test run's own cluster."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ServeReplica:changes:Retriever" in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_documents_are_found_by_every_replica_and_survive_their_death(service: Service):
    acknowledged: list[str] = []

    def put() -> None:
        name = f"new-{threading.get_ident()}-{time.monotonic_ns()}"
        status, answer = service("/documents", {"documents": [{"doc_id": name, "text": f"a new pet called {name}"}]})
        assert status == 200, answer
        acknowledged.append(name)

    def can_be_read(name: str) -> bool:
        return service(f"/documents/{name}")[0] == 200

    with load(put, clients=2):
        wait_for(lambda: len(acknowledged) > 5)
        victim = retrievers()[0]
        os.kill(victim, signal.SIGKILL)  # the other one takes over; a request that was lost is asked again
        count = len(acknowledged)
        wait_for(lambda: len(acknowledged) > count + 10)
    wait_for(lambda: len(set(retrievers()) - {victim}) == 2)
    before = retrievers()
    for process in before:  # all at once: nothing may live in memory only
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: len(set(retrievers()) - set(before)) == 2)
    wait_for(lambda: can_be_read(acknowledged[0]))
    for _ in range(4):  # by whichever replica
        assert [name for name in acknowledged if not can_be_read(name)] == []
    status, answer = service("/documents", {"doc_ids": acknowledged[1:]}, "DELETE")
    assert (status, answer["deleted"]) == (200, len(acknowledged) - 1)
    for _ in range(4):
        found = service.found(f"a new pet called {acknowledged[0]}")
        assert [name for name in found if name.startswith("new-")] == [acknowledged[0]]


def test_an_index_is_swapped_under_load_and_swapped_back(service: Service, tmp_path: Path):
    other = tmp_path / "runs"
    for name in ("index", "data"):
        shutil.copytree(service.runs / name, other / name)
    mark_texts(other / "data", other / "index", " (second edition)")
    assert service("/documents", {"documents": [{"doc_id": "added", "text": "a guard"}]})[0] == 200
    first = service.settings["Retriever"]

    def editions() -> bool:
        status, answer = service("/search", {"query": "a guard", "top_k": 30, "num_candidates": 30})
        assert status == 200, answer
        texts = {result["doc_id"]: result["text"] for result in answer["results"]}
        assert texts.pop("added") == "a guard"  # the log stays
        marked = {text.endswith(" (second edition)") for name, text in texts.items() if not name.startswith("new-")}
        assert len(marked) == 1, texts  # never half of each
        return marked.pop()

    with load(editions) as answers:
        wait_for(lambda: len(answers) > 5)
        service.change("Retriever", {"index": str(other / "index"), "corpus": str(other / "data")})
        wait_for(lambda: len(answers) > 30 and all(answers[-12:]))
        service.change("Retriever", first)
        wait_for(lambda: not any(answers[-12:]))
    assert set(answers) == {True, False}


def mark_texts(data: Path, index: Path, mark: str) -> None:
    """Another edition of the same documents, with a key of its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in (data / "corpus").glob("*.parquet"):
        table = pq.read_table(part)
        texts = pa.array([text + mark for text in table["text"].to_pylist()], table.schema.field("text").type)
        pq.write_table(table.set_column(table.schema.get_field_index("text"), table.schema.field("text"), texts), part)
    key = json.loads((data / "manifest.json").read_text())["key"]
    for manifest in (data / "manifest.json", index / "manifest.json"):
        manifest.write_text(manifest.read_text().replace(key, "second" + key[6:]))
