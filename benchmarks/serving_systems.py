"""The systems of benchmarks/serving.py: each started on a port of its own, ready, and stopped again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import yaml

ROOT = Path(__file__).parent.parent
BARE = """
import sys, torch, uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder
model = CrossEncoder(sys.argv[1], device="cpu", max_length=int(sys.argv[3]))
class Body(BaseModel):
    query: str
    documents: list[str]
app = FastAPI()
@app.get("/health")
def health(): return {}
@app.post("/rerank")
def rerank(body: Body):
    scores = model.predict([(body.query, text) for text in body.documents], show_progress_bar=False).tolist()
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    return {"results": [{"index": place, "relevance_score": scores[place]} for place in order]}
uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
"""


@dataclass(frozen=True)
class Running:
    """A system that answers at ``url``, and its process."""

    url: str
    process: psutil.Process

    def memory(self) -> dict[str, float]:
        """Resident MiB of its processes, by what they are."""
        found: dict[str, float] = {}
        for process in (self.process, *self.process.children(recursive=True)):
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                kind = next((name for name in ("Reranker", "Gateway", "ProxyActor", "ServeController") if name in line),
                            "other")  # fmt: skip
                found[kind] = found.get(kind, 0.0) + process.memory_info().rss / 2**20
        return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(command: list[str], port: int, ready: str, folder: Path, **environment: str) -> Iterator[Running]:
    """The system of a command, from its first good answer at ``ready`` on; stopped like with Ctrl-C."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("RANKER_API_KEYS")}
    with (folder / f"{port}.log").open("w") as log:
        process = subprocess.Popen(
            command, env={**keep, **environment}, stdout=log, stderr=subprocess.STDOUT, cwd=folder,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
    try:
        end = time.monotonic() + 180
        while not _answers(f"http://127.0.0.1:{port}{ready}"):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[:3]} did not start:\n{(folder / f'{port}.log').read_text()[-3000:]}")
            time.sleep(0.3)
        yield Running(f"http://127.0.0.1:{port}/rerank", psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def threads(number: int) -> dict[str, str]:
    """Environment in which a process computes with so many threads."""
    return {"OMP_NUM_THREADS": str(number), "MKL_NUM_THREADS": str(number), "TOKENIZERS_PARALLELISM": "false"}


@contextmanager
def ranker(model: str, max_length: int, folder: Path, replicas: int = 1, cores: int = 2,
           scaling: dict[str, Any] | None = None, **environment: str) -> Iterator[Running]:  # fmt: skip
    """This project: serve_configs/local.yaml without retrieval, with so many rerankers of ``cores`` threads each."""
    config = yaml.safe_load((ROOT / "serve_configs" / "local.yaml").read_text())
    port = free_port()
    config["http_options"]["port"] = port
    [application] = config["applications"]
    application["args"] = {"reranker": model, "retrieval": False, "deadline_s": 25,
                           "overrides": {"serve.scoring.max_length": max_length}}  # fmt: skip
    deployments = {deployment["name"]: deployment for deployment in application["deployments"]}
    deployments["Gateway"]["ray_actor_options"] = {"num_cpus": 0}
    deployments["Reranker"]["ray_actor_options"] = {
        "num_cpus": 0.5, "runtime_env": {"env_vars": threads(cores)}
    }  # fmt: skip
    deployments["Reranker"]["autoscaling_config"].update(
        {"min_replicas": replicas, "max_replicas": replicas, **(scaling or {})}
    )
    application["deployments"] = [deployments["Gateway"], deployments["Reranker"]]
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    serve = str(Path(sys.executable).with_name("serve"))
    environment |= {
        "RAY_ADDRESS": "local", "RAY_TMPDIR": str(folder), "PYTHONPATH": str(ROOT),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "ranker.serving.proxy:middlewares",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
    }  # fmt: skip
    with started([serve, "run", "serve.yaml"], port, "/ready", folder, **environment) as running:
        yield running


@contextmanager
def infinity(binary: str, engine: str, model: str, folder: Path) -> Iterator[Running]:
    """Infinity as documented, without telemetry and downloads; ``engine`` may be ``torch:bfloat16``."""
    port = free_port()
    engine, _, precision = engine.partition(":")
    command = [
        binary, "v2", "--model-id", model, "--served-model-name", "reranker", "--engine", engine, "--device", "cpu",
        "--port", str(port), "--host", "127.0.0.1", "--no-model-warmup", "--log-level", "error",
        *(("--dtype", precision) if precision else ()),
    ]  # fmt: skip
    environment = {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    with started(command, port, "/health", folder, **environment, **threads(2)) as running:
        yield running


@contextmanager
def bare(model: str, max_length: int, folder: Path) -> Iterator[Running]:
    """FastAPI around CrossEncoder.predict, as many write it."""
    port = free_port()
    (folder / "bare.py").write_text(BARE)
    command = [sys.executable, "bare.py", model, str(port), str(max_length)]
    with started(command, port, "/health", folder, **threads(2)) as running:
        yield running
