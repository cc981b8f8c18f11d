"""A model is swapped while requests come over HTTP, here without Ray; test_changes.py does it with Ray Serve."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import pytest

BODY = json.dumps(
    {"query": "which animal guards a house", "texts": ["A dog barks.", "A cat purrs.", "A parrot talks."]}
)


def ask(address: str) -> tuple[float, ...]:
    request = Request(f"{address}/rerank", BODY.encode(), {"content-type": "application/json"})
    with urlopen(request, timeout=30) as answer:  # raises on any error
        by_place = {result["index"]: result["score"] for result in json.load(answer)}
    return tuple(by_place[place] for place in range(3))


def change_of(address: str) -> str:
    with urlopen(f"{address}/info", timeout=30) as told:
        return json.load(told)["reranker"]["change"]


def is_near(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one == pytest.approx(other, abs=1e-4)


def test_no_request_is_lost_and_each_is_answered_by_one_model(
    http_service: Callable[[str], str], tiny_reranker: str, other_reranker: str, tmp_path
):
    address = http_service()
    change = http_service.changes[-1]
    old = ask(address)
    new = tuple(1 - score for score in old)  # the other model's logits are the negative ones
    answers: list[tuple[float, ...]] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            answers.append(ask(address))

    def wait_for(expected: tuple[float, ...]) -> None:
        end = time.monotonic() + 60
        while not all(is_near(answer, expected) for answer in answers[-6:]) or len(answers) < 12:
            assert time.monotonic() < end
            time.sleep(0.02)

    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(load) for _ in range(3)]
        try:
            wait_for(old)
            change(models={"pets": other_reranker})
            wait_for(new)
            change(models={"pets": str(tmp_path)})  # no model there: what serves goes on
            count = len(answers)
            while len(answers) < count + 12:
                time.sleep(0.02)
            wait_for(new)
            end = time.monotonic() + 60
            while "config.json" not in change_of(address):
                assert time.monotonic() < end
                time.sleep(0.02)
            change(models={"pets": tiny_reranker})
            wait_for(old)
        finally:
            stop.set()
        for one in running:
            one.result()
    assert [answer for answer in answers if not is_near(answer, old) and not is_near(answer, new)] == []
