"""The load of benchmarks/serving.py, in a process of its own: closed loop (clients) or open loop (a rate).

    python benchmarks/serving_load.py '{"url": ..., "texts": "texts.json", "documents": 5, "clients": 4, "seconds": 5}'

Each request has other documents. Prints one JSON object: latencies, pairs a second, answers by status.
"""

import asyncio
import itertools
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
import numpy as np


@dataclass(frozen=True)
class Load:
    """One measurement.

    Args:
        url: of a /rerank that takes Infinity's body. texts: JSON file, {"queries": [...], "documents": [...]}.
        documents: a request. clients: of a closed loop. rate: requests a second of an open loop, where above 0.
        seconds: after which no request starts; those that run are waited for, for as long again, and at least 30 s.
    """

    url: str
    texts: str
    documents: int
    clients: int = 1
    rate: float = 0.0
    seconds: float = 5.0
    seed: int = 0


@dataclass
class Answers:
    """What came back: (status, seconds, whether all documents have a score); -1 is no answer."""

    seen: list[tuple[int, float, bool]] = field(default_factory=list)
    took: float = 0.0


def bodies(load: Load):
    """Endless requests, as bytes: making them must not be what is measured."""
    texts = json.loads(Path(load.texts).read_text())
    rng = random.Random(load.seed)
    made = []
    for _ in range(64):
        documents = rng.choices(texts["documents"], k=load.documents)
        body = {"query": rng.choice(texts["queries"]), "documents": documents, "return_documents": False,
                "raw_scores": False, "model": "reranker"}  # fmt: skip
        made.append(json.dumps(body).encode())
    return itertools.cycle(made)


async def ask(session: aiohttp.ClientSession, load: Load, body: bytes, answers: Answers) -> None:
    """One request."""
    begin = time.perf_counter()
    try:
        headers = {"content-type": "application/json"}
        async with session.post(load.url, data=body, headers=headers) as answer:
            content = await answer.read()
            seconds = time.perf_counter() - begin
            whole = answer.status == 200 and len(json.loads(content)["results"]) == load.documents
            answers.seen.append((answer.status, seconds, whole))
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError):
        answers.seen.append((-1, time.perf_counter() - begin, False))


async def closed(session: aiohttp.ClientSession, load: Load, answers: Answers) -> None:
    """Each client asks again as soon as it has its answer."""
    source, end = bodies(load), time.perf_counter() + load.seconds

    async def client() -> None:
        while time.perf_counter() < end:
            await ask(session, load, next(source), answers)

    await asyncio.gather(*(client() for _ in range(load.clients)))


async def opened(session: aiohttp.ClientSession, load: Load, answers: Answers) -> None:
    """Requests come at random, however long the answers take."""
    source, rng, tasks = bodies(load), random.Random(load.seed), set()
    begin = due = time.perf_counter()
    while (due := due + rng.expovariate(load.rate)) < begin + load.seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(ask(session, load, next(source), answers))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


async def run(load: Load) -> Answers:
    """All answers of a load."""
    answers = Answers()
    timeout = aiohttp.ClientTimeout(total=load.seconds + max(30.0, load.seconds))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        begin = time.perf_counter()
        await (opened if load.rate else closed)(session, load, answers)
        answers.took = time.perf_counter() - begin
    return answers


def summary(load: Load, answers: Answers) -> dict:
    """Numbers of a load; latencies in milliseconds."""
    good = [seconds for status, seconds, whole in answers.seen if status == 200 and whole]
    refused = [seconds for status, seconds, _ in answers.seen if status == 429]
    statuses: dict[str, int] = {}
    for status, _, whole in answers.seen:
        name = str(status) if status != 200 or whole else "200 but not whole"
        statuses[name] = statuses.get(name, 0) + 1

    def percentiles(seconds: list[float]) -> dict[str, float]:
        return {f"p{p}": round(1000 * float(np.percentile(seconds, p)), 1) for p in (50, 95, 99)} if seconds else {}

    return {
        **{key: value for key, value in asdict(load).items() if key in ("documents", "clients", "rate")},
        **percentiles(good),
        "pairs_per_s": round(len(good) * load.documents / answers.took, 1),
        "statuses": statuses,
        "refused": percentiles(refused),
        "refused_within_100_ms": round(float(np.mean([s <= 0.1 for s in refused])), 4) if refused else None,
    }


if __name__ == "__main__":
    wanted = Load(**json.loads(sys.argv[1]))
    print(json.dumps(summary(wanted, asyncio.run(run(wanted)))))
