import asyncio
import logging
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ranker.config import Experiment


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the service logs reaches ``caplog`` also after an earlier test has connected Ray, which ends that."""
    for name in ("ray", "ray.serve"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)


@pytest.fixture(scope="session")
def experiment(encoding_class, pets, tiny_retriever, tiny_reranker, tmp_path_factory) -> Path:
    """An experiment file whose data and index are done."""
    from ranker.data.catalog import prepare
    from ranker.retrieval import embed
    from ranker.retrieval.index import build_index

    folder = tmp_path_factory.mktemp("service")
    config = Experiment().with_overrides({
        "name": "pets", "output_dir": str(folder / "runs"), "data.source": str(pets),
        "index.model": tiny_retriever, "index.num_workers": 1, "serve.reranker": tiny_reranker,
        "serve.scoring.precision": "fp32",
    })  # fmt: skip
    (folder / "pets.yaml").write_text(config.to_yaml())
    prepare(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "_encoded", encoding_class())  # ten documents are not worth a cluster
        patch.setattr(embed, "connected", lambda config: nullcontext())
        build_index(config)
    return folder / "pets.yaml"


class Local:
    """A deployment in this process: its methods are called as a handle's are."""

    def __init__(self, replica: Any) -> None:
        self._replica = replica

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._replica, name))


@pytest.fixture(scope="session")
def http_service(tiny_reranker: str, experiment: Path, tmp_path_factory) -> Iterator[Callable[..., str]]:
    """Starts the gateway with a reranker and an index in this process, and returns its address.

    All but Ray Serve is real: the socket, the wire formats, the models. Its arguments are the accepted key, or none.
    """
    import uvicorn

    from ranker.config import ScoringConfig
    from ranker.serving.calls import Backend
    from ranker.serving.deployments import RerankerReplica, RetrieverReplica
    from ranker.serving.keys import load_keys
    from ranker.serving.routes import Service, create_app

    servers: list[tuple[uvicorn.Server, threading.Thread]] = []
    changes: list[Callable[..., None]] = []  # of the last service: a new user_config for its reranker

    def start(key: str = "") -> str:
        reranker = RerankerReplica(ScoringConfig(precision="fp32").model_dump(), shares_cores=False)
        retriever = RetrieverReplica(str(tmp_path_factory.mktemp("documents")))
        runs = experiment.parent / "runs"

        @asynccontextmanager
        async def load(app: Any) -> AsyncIterator[None]:
            loop = asyncio.get_running_loop()
            changes.append(
                lambda **settings: asyncio.run_coroutine_threadsafe(reranker.reconfigure(settings), loop).result(60)
            )
            await reranker.reconfigure({"models": {"pets": tiny_reranker}})
            await retriever.reconfigure({"index": str(runs / "index"), "corpus": str(runs / "data")})
            yield

        backend = Backend(Local(reranker), Local(retriever), 30.0)
        app = create_app(Service(backend, "pets", keys=load_keys(environment={"RANKER_API_KEYS": key})))
        app.router.lifespan_context = load
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        servers.append((server, thread))
        end = time.monotonic() + 60
        while not server.started and thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    start.changes = changes  # type: ignore[attr-defined]
    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="session")
def other_reranker(tiny_reranker: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny reranker with its head turned round: the order of documents is the reverse."""
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path_factory.mktemp("models") / "turned"
    shutil.copytree(tiny_reranker, folder)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reranker)
    model.classifier.weight.data.neg_()
    model.classifier.bias.data.neg_()
    model.save_pretrained(folder)
    return str(folder)
