import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ranker.config import ScoringConfig
from ranker.rag import RAGPipeline
from ranker.scoring import load_scorer, probabilities

DOCUMENTS = [
    {"id": "cat", "title": "Cats", "text": "a cat sleeps most of the day", "metadata": {"kind": "mammal", "legs": 4}},
    {"id": "dog", "text": "a dog needs a walk every day", "metadata": {"kind": "mammal", "legs": 4, "tags": ["walk"]}},
    {"id": "fish", "text": "a fish swims in clean water", "metadata": {"kind": "fish", "legs": 0}},
    {"id": "bird", "title": "Birds", "text": "a parrot can learn to speak", "metadata": {"kind": "bird", "legs": 2}},
]


@pytest.fixture(scope="session")
def pet_documents() -> list[dict[str, Any]]:
    return DOCUMENTS


@pytest.fixture(scope="session")
def pet_pipeline(tiny_retriever: str, tiny_reranker: str) -> RAGPipeline:
    """The four documents, indexed; nothing may change it."""
    options = {"scoring": ScoringConfig(precision="fp32"), "device": "cpu"}
    built = RAGPipeline(tiny_retriever, tiny_reranker, top_k_retrieval=4, top_k_rerank=3, **options)
    built.index_documents(DOCUMENTS)
    return built


class Service:
    """A reranker's routes on loopback, around a local model, as strict as text-embeddings-inference is as it comes.

    ``busy``: answers of 503 that come first. ``most``: texts that a request may have. ``tells``: whether it says so.
    """

    def __init__(self, model: str) -> None:
        self.scorer, self.busy, self.calls, self.key = load_scorer(model, device="cpu"), 0, [], "secret"
        self.most, self.tells = 32, True
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.calls.append((self.path, body))
                self.send(*service.answer(self.path, body, self.headers.get("authorization")))

            def do_GET(self) -> None:
                about = {"max_client_batch_size": service.most, "auto_truncate": False}
                found = service.tells and self.path == "/info"
                self.send(*((200, about) if found else (404, {"message": "no such route"})))

            def send(self, status: int, answer: Any) -> None:
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, path: str, body: dict, key: str | None) -> tuple[int, Any]:
        if key != f"Bearer {self.key}":
            return 401, {"message": "no key"}
        if self.busy:
            self.busy -= 1
            return 503, {"message": "busy"}
        texts = body["texts"] if path == "/rerank" else body["documents"]
        if len(texts) > self.most:
            said = f"batch size {len(texts)} > maximum allowed batch size {self.most}"
            return 422, {"error": said, "error_type": "Validation"}
        if path == "/rerank" and not body.get("truncate") and any(len(text.split()) > 512 for text in texts):
            return 413, {"error": "`inputs` must have less than 512 tokens", "error_type": "Validation"}
        ranked = self.scorer.rank(body["query"], texts)
        if path == "/rerank":
            return 200, [{"index": place, "score": logit} for place, logit in ranked]
        scored = zip(ranked, probabilities([logit for _, logit in ranked]).tolist(), strict=True)
        return 200, {"results": [{"index": place, "relevance_score": score} for (place, _), score in scored]}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def rerank_service(tiny_reranker: str) -> Iterator[Service]:
    service = Service(tiny_reranker)
    yield service
    service.stop()
