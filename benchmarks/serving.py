"""The service beside Infinity and a bare FastAPI around CrossEncoder: same weights, same texts, in turn in one run.

    python benchmarks/serving.py compare  BEIR_FOLDER_OR_ZIP [--infinity BINARY] [--documents 5 50] [--clients 1 4]
    python benchmarks/serving.py overload BEIR_FOLDER_OR_ZIP        ten times the capacity, open loop
    python benchmarks/serving.py scaling  BEIR_FOLDER_OR_ZIP        a load step up and down; writes a plot
    python benchmarks/serving.py soak     BEIR_FOLDER_OR_ZIP        memory under load

The load comes from a second process (serving_load.py). Without ``--model`` the bundled MiniLM gets a seeded random
head. The first row is the scoring engine alone, in a process with the same threads, on the same pairs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from scoring import with_random_head
from serving_systems import Running, bare, infinity, ranker, threads

from ranker.data.catalog import load
from ranker.machine import available_cpus, instruction_sets
from ranker.pretrained import BUNDLED, resolve

# Pairs in flight above which a cell is left out: on a CPU nothing would end within the measurement.
MOST_IN_FLIGHT = 3200
ENGINE = """
import json, random, sys, time
from ranker.config import ScoringConfig
from ranker.scoring import load_scorer
model, max_length, texts, documents, seconds = sys.argv[1], int(sys.argv[2]), json.load(open(sys.argv[3])), 512, 10
scorer, rng = load_scorer(model, ScoringConfig(max_length=max_length)), random.Random(0)
pairs = [(query, text) for query, text in zip(rng.choices(texts["queries"], k=documents),
                                              rng.choices(texts["documents"], k=documents))]
scorer.score(pairs[:64])
done, begin = 0, time.perf_counter()
while time.perf_counter() < begin + seconds:
    scorer.score(pairs)
    done += len(pairs)
print(done / (time.perf_counter() - begin))
"""


def main() -> None:
    """Run one of the four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["compare", "overload", "scaling", "soak"])
    parser.add_argument("data", help="collection in BEIR layout, folder or zip")
    parser.add_argument("--model", help="reranker folder; default: the bundled MiniLM with a random head")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--infinity", help="infinity_emb of an environment that has it")
    parser.add_argument("--infinity-engines", nargs="*", default=["torch"])
    parser.add_argument("--skip", nargs="*", default=[], help="words in the names of systems that are left out")
    parser.add_argument("--documents", type=int, nargs="+", default=[5, 50, 500])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--plot", default="docs/images/autoscaling.png")
    arguments = parser.parse_args()
    arguments.plot = Path(arguments.plot).absolute()
    # Ray's sockets live below it, and their names may have about 100 characters.
    run = {"compare": compare, "overload": overload, "scaling": scaling, "soak": soak}[arguments.what]
    with tempfile.TemporaryDirectory(prefix="rsb-", dir="/tmp", ignore_cleanup_errors=True) as name:
        if arguments.model is None:
            arguments.model = str(Path(name) / "random")
            with_random_head(Path(arguments.model))
        arguments.model = with_tokenizer(resolve(arguments.model), arguments.max_length, Path(name))
        arguments.texts = texts_of(arguments.data, Path(name))
        print(
            f"{available_cpus()} cores {instruction_sets()}; at most {arguments.max_length} tokens a pair", flush=True
        )
        run(arguments, Path(name))


def with_tokenizer(model: str, max_length: int, folder: Path) -> str:
    """The model with the tokenizer's files as they came, which older libraries read too, and its length in them."""
    copy = folder / "model"
    shutil.copytree(model, copy)
    for file in Path(resolve(BUNDLED)).glob("*token*.json"):
        shutil.copy(file, copy / file.name)
    config = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": max_length}))
    return str(copy)


def texts_of(data: str, folder: Path) -> str:
    """A JSON file of queries and documents."""
    collection = load(data, "test")
    texts = {"queries": collection.queries["text"].to_pylist()[:500],
             "documents": list(collection.texts().values())[:5000]}  # fmt: skip
    (folder / "texts.json").write_text(json.dumps(texts))
    return str(folder / "texts.json")


def measured(running: Running, arguments: argparse.Namespace, **load: Any) -> dict[str, Any]:
    """One load from a second process."""
    wanted = {"url": running.url, "texts": arguments.texts, "seconds": arguments.seconds, **load}
    script = Path(__file__).with_name("serving_load.py")
    done = subprocess.run([sys.executable, str(script), json.dumps(wanted)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def warm(running: Running, arguments: argparse.Namespace) -> None:
    """Until the pace of the engine is known and memory is taken."""
    measured(running, arguments, documents=50, clients=4, seconds=3.0)


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Every system in turn over the grid."""
    engine = subprocess.run(
        [sys.executable, "-c", ENGINE, arguments.model, str(arguments.max_length), arguments.texts],
        capture_output=True, text=True, check=True, env={**os.environ, **threads(2)},
    )  # fmt: skip
    print(f"\nscoring engine alone, two threads: {float(engine.stdout.split()[-1]):.1f} pairs/s\n")
    systems: dict[str, Callable[[], AbstractContextManager[Running]]] = {
        "ranker, 1 replica x 2 threads": lambda: ranker(arguments.model, arguments.max_length, folder),
        "ranker, 2 replicas x 1 thread": lambda: ranker(arguments.model, arguments.max_length, folder, 2, 1),
        "ranker, 1 x 2, throughput-optimised Serve": lambda: ranker(
            arguments.model, arguments.max_length, folder, RAY_SERVE_THROUGHPUT_OPTIMIZED="1"
        ),
        # Its statistics listen on all addresses for as long as this row takes.
        "ranker, 1 x 2, HAProxy": lambda: ranker(
            arguments.model, arguments.max_length, folder, RAY_SERVE_ENABLE_HA_PROXY="1"
        ),
        "FastAPI + CrossEncoder": lambda: bare(arguments.model, arguments.max_length, folder),
    }
    for name in arguments.infinity_engines if arguments.infinity else ():
        systems[f"Infinity, {name}"] = lambda name=name: infinity(arguments.infinity, name, arguments.model, folder)
    print("| system | documents | clients | p50 ms | p95 ms | p99 ms | pairs/s | answers |\n|" + "---|" * 8, flush=True)
    for name, start in systems.items():
        if any(word in name for word in arguments.skip):
            continue
        try:
            with start() as running:
                warm(running, arguments)
                for documents in arguments.documents:
                    for clients in arguments.clients:
                        if documents * clients <= MOST_IN_FLIGHT:
                            row(name, measured(running, arguments, documents=documents, clients=clients))
        except RuntimeError as error:  # one that does not start leaves the others their rows
            print(f"| {name} | did not start: {str(error).splitlines()[-1][:100]} |" + " |" * 6, flush=True)


def row(name: str, found: dict[str, Any]) -> None:
    """One line of the table."""
    times = " | ".join(f"{found[p]:.0f}" if p in found else "-" for p in ("p50", "p95", "p99"))
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(found["statuses"].items()))
    print(f"| {name} | {found['documents']} | {found['clients']} | {times} | {found['pairs_per_s']:.1f} | {statuses} |",
          flush=True)  # fmt: skip


def overload(arguments: argparse.Namespace, folder: Path) -> None:
    """The capacity in closed loop, then ten times as many requests a second."""
    with ranker(arguments.model, arguments.max_length, folder) as running:
        warm(running, arguments)
        for documents in arguments.documents:
            capacity = measured(running, arguments, documents=documents, clients=16)
            rate = 10 * capacity["pairs_per_s"] / documents
            found = measured(running, arguments, documents=documents, rate=rate)
            share = found["refused_within_100_ms"]
            print(f"{documents} documents: capacity {capacity['pairs_per_s']:.0f} pairs/s; at {rate:.0f} requests/s "
                  f"{found['pairs_per_s']:.0f} pairs/s answered, {found['statuses']}; answered in {found.get('p50')} / "
                  f"{found.get('p99')} ms (p50 / p99), refused in {found['refused']} ms, "
                  f"{'-' if share is None else f'{100 * share:.1f}%'} of the refusals within 100 ms")  # fmt: skip


def replicas(running: Running) -> int:
    """Rerankers that answer a scrape."""
    with urlopen(running.url.replace("/rerank", "/metrics"), timeout=10) as answer:
        return sum(line.startswith(b"ranker_pending_tokens{") for line in answer.read().splitlines())


def scaling(arguments: argparse.Namespace, folder: Path) -> None:
    """Replicas and latencies while the load goes from a quarter of one replica's capacity to 1.4 times, and back."""
    fast = {"min_replicas": 1, "max_replicas": 2, "upscale_delay_s": 6, "downscale_delay_s": 15,
            "look_back_period_s": 5}  # fmt: skip
    trace: list[tuple[float, float, int, float]] = []
    with ranker(arguments.model, arguments.max_length, folder, cores=1, scaling=fast) as running:
        capacity = measured(running, arguments, documents=5, clients=8)["pairs_per_s"] / 5
        time.sleep(30)  # a replica that this has called for
        wait = time.monotonic() + 90
        while replicas(running) > 1 and time.monotonic() < wait:
            time.sleep(1)
        begin = time.monotonic()
        for share, seconds in ((0.25, 20), (1.4, 50), (0.25, 70)):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                rate = share * capacity
                found = measured(running, arguments, documents=5, rate=rate, seconds=3.0)
                trace.append((time.monotonic() - begin, rate, replicas(running), found.get("p95", float("nan"))))
                second, _, number, latency = trace[-1]
                print(f"{second:.0f} s: {rate:.1f} requests/s, {number} replicas, p95 {latency:.0f} ms", flush=True)
    plot(trace, arguments.plot)


def plot(trace: list[tuple[float, float, int, float]], file: Path) -> None:
    """Three panels over time: the load, the replicas and the latency."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seconds, rate, number, latency = zip(*trace, strict=True)
    figure, (load, replicas, late) = pyplot.subplots(3, 1, sharex=True, figsize=(8, 6))
    load.step(seconds, rate, where="pre", color="0.4")
    load.set(ylabel="requests/s", ylim=(0, None))
    replicas.step(seconds, number, where="pre", color="tab:blue", linewidth=2)
    replicas.set(ylabel="replicas", yticks=range(max(number) + 2), ylim=(0, max(number) + 0.5))
    late.plot(seconds, latency, color="tab:orange")
    late.set(xlabel="seconds", ylabel="p95 of 3 s, ms", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def soak(arguments: argparse.Namespace, folder: Path) -> None:
    """Memory of the service's processes under load, after a quarter and at the end."""
    with ranker(arguments.model, arguments.max_length, folder) as running:
        warm(running, arguments)
        stop, seen = threading.Event(), []

        def watch() -> None:
            while not stop.wait(2.0):
                seen.append(running.memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        found = measured(running, arguments, documents=20, clients=8)
        stop.set()
        watcher.join()
    row("ranker", found)
    quarter = len(seen) // 4
    for kind in sorted({kind for sample in seen for kind in sample}):
        values = [sample.get(kind, 0.0) for sample in seen]
        early, late = max(values[quarter : 2 * quarter]), max(values[-quarter:])
        print(
            f"{kind}: at most {early:.0f} MiB in the second quarter, {late:.0f} MiB in the last ({late - early:+.0f})"
        )


if __name__ == "__main__":
    main()
