"""A node dies, then one falls silent, under load on a cluster of three raylets: no answer is lost or wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# The driver: the head runs Serve's controller and the proxy; a gateway and a reranker stand on each of two nodes.
DRIVER = """
import json, socket, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import psutil
import ray
from ray import serve
from ray.cluster_utils import Cluster

from ranker.serving.deployments import Gateway, Reranker

MODEL = sys.argv[1]
DOCUMENTS = ["A dog barks.", "A cat purrs.", "A goldfish eats flakes.", "A parrot talks."]
BODY = json.dumps({"query": "which animal guards a house", "texts": DOCUMENTS}).encode()
SMALL = {"num_replicas": 2, "max_replicas_per_node": 1, "ray_actor_options": {"num_cpus": 0.1}}


def application():
    config = {"scoring": {"precision": "fp32"}}
    reranker = Reranker.options(**SMALL, user_config={"models": {"pets": MODEL}}).bind(config["scoring"])
    return Gateway.options(**SMALL).bind(reranker, None, "pets", config, {"reranker": MODEL, "retrieval": False})


def rerank():
    begin = time.monotonic()
    request = Request(f"http://127.0.0.1:{port}/rerank", BODY, {"content-type": "application/json"})
    try:
        with urlopen(request, timeout=60) as answer:
            status, body = answer.status, json.load(answer)
    except HTTPError as error:
        status, body = error.code, error.read().decode()
    except (URLError, OSError) as error:
        status, body = 0, repr(error)
    return {"status": status, "body": body, "seconds": time.monotonic() - begin}


def under_load(happen, seconds):
    # What four clients were answered from a second before it happens until some seconds after it.
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answers.append(rerank())

    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(ask) for _ in range(4)]
        time.sleep(1.0)
        happen()
        before = len(answers)
        time.sleep(seconds)
        stop.set()
        for one in running:
            one.result()
    return {"answers": answers, "afterwards": len(answers) - before}


def wait_for_replicas():
    end = time.monotonic() + 180
    while time.monotonic() < end:
        deployments = serve.status().applications["nodes"].deployments
        states = {name: dict(found.replica_states) for name, found in deployments.items()}
        if all(found == {"RUNNING": 2} for found in states.values()):
            return states
        time.sleep(0.5)
    return states


def silence(node):
    # Stopped and not killed: nothing closes its connections, as when a cable is pulled.
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        process.suspend()
        silent.append(process)


with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
silent, told = [], {}
with tempfile.TemporaryDirectory(prefix="rn-", dir="/tmp", ignore_cleanup_errors=True) as folder:
    health = {"health_check_period_ms": 500, "health_check_failure_threshold": 3, "health_check_timeout_ms": 500}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "temp_dir": folder, "include_dashboard": False, "_system_config": health},
    )
    try:
        first, second = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        http = {"host": "127.0.0.1", "port": port, "request_timeout_s": 30}
        serve.start(proxy_location="HeadOnly", http_options=http)
        serve.run(application(), name="nodes", route_prefix="/")
        told["expected"], told["start"] = rerank(), wait_for_replicas()
        told["killed"] = under_load(lambda: cluster.remove_node(first, allow_graceful=False), 8)
        cluster.add_node(num_cpus=1)
        told["replaced"] = wait_for_replicas()
        told["silent"] = under_load(lambda: silence(second), 12)
        cluster.add_node(num_cpus=1)
        told["replaced again"] = wait_for_replicas()
        told["last"] = rerank()
        print("told " + json.dumps(told), flush=True)
        serve.shutdown()
        ray.shutdown()
    finally:
        for process in silent:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_that_dies_and_one_that_falls_silent_lose_no_request(tiny_reranker: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, tiny_reranker]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        done = subprocess.run(command, stdout=out, stderr=err, timeout=560, env=environment)
    said = [line for line in (tmp_path / "out").read_text().splitlines() if line.startswith("told ")]
    assert said, (done.returncode, (tmp_path / "err").read_text()[-4000:])
    told = json.loads(said[0].removeprefix("told "))
    both = {"Gateway": {"RUNNING": 2}, "Reranker": {"RUNNING": 2}}
    assert [told[moment] for moment in ("start", "replaced", "replaced again")] == [both] * 3
    expected = {result["index"]: result["score"] for result in told["expected"]["body"]}
    assert len(expected) == 4 and told["last"]["status"] == 200
    for moment in ("killed", "silent"):
        answers = told[moment]["answers"]
        wrong = [answer for answer in answers if answer["status"] != 200]
        assert not wrong, (moment, len(wrong), len(answers), wrong[:3])
        for answer in answers:
            assert {result["index"]: result["score"] for result in answer["body"]} == pytest.approx(expected, abs=1e-5)
        assert told[moment]["afterwards"] > 20, moment
        assert max(answer["seconds"] for answer in answers) < 25
