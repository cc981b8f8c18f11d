"""Pairs a second of this project and of every peer that is installed: same pairs, same weights, one interleaved run.

    python benchmarks/scoring.py BEIR_FOLDER_OR_ZIP --model RERANKER [--queries 4] [--depth 50] [--repeats 3]
    python benchmarks/scoring.py ... --only ranker --only "torch fp32"
    python benchmarks/scoring.py ... --python OpenVINO=ENVIRONMENT/bin/python --python Infinity=OTHER/bin/python

Peers that want other versions of a library than this project run in an environment of their own (``--python``).

Each contestant has a process of its own (``scoring_contestants.py``) and they take turns, list by list, so that a busy
machine slows all of them alike; the others sleep meanwhile. Candidates are BM25's. Without ``--model``, the bundled
MiniLM gets a seeded random head: that has the speed of a trained one, and NDCG means nothing. "CPU" is the processor
time of the process, which a busy machine changes little.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from scoring_contestants import CONTESTANTS, Lists

from ranker.data.catalog import load
from ranker.machine import available_cpus, processor
from ranker.pretrained import BUNDLED, resolve
from ranker.scoring.parity import ndcg_loss


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="collection in BEIR layout, folder or zip")
    parser.add_argument("--model", help="reranker folder; default: the bundled MiniLM with a random head")
    parser.add_argument("--split", default="test")
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--only", action="append", help="part of a contestant's name; may be repeated")
    parser.add_argument("--python", action="append", default=[], metavar="PART=PYTHON",
                        help="the interpreter of peers with PART in their name; may be repeated")  # fmt: skip
    parser.add_argument("--work", type=Path, help="folder that keeps the models; a second run finds them there")
    parser.add_argument("--prepare", action="store_true", help="only fill --work")
    arguments = parser.parse_args()
    lists, labels = candidates(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        base = (arguments.work or Path(temporary)).absolute()
        if not (base / "auto" / "onnx").is_dir():
            prepare(base, arguments.model, arguments.max_length)
        if arguments.prepare:
            return
        names = [name for name in CONTESTANTS if not arguments.only or any(part in name for part in arguments.only)]
        rows = measure(names, base, lists, arguments)
        tokens, flops = work_of(base / "torch", lists, arguments.max_length)
    pairs = sum(len(texts) for _, texts in lists)
    print(f"\n{pairs} pairs ({len(lists)} queries x {arguments.depth}), {tokens:.0f} tokens on the mean, limit "
          f"{arguments.max_length}; {arguments.repeats} rounds, interleaved; {available_cpus()} cores, "
          f"{processor()}")  # fmt: skip
    print_table(rows, lists, labels)
    print()
    for name, row in rows.items():
        print(f"- {name}: {', '.join(row.get('versions', []))}")
    print_peak(rows, flops)


def candidates(arguments: argparse.Namespace) -> tuple[Lists, np.ndarray]:
    """The first queries of the split with BM25's best documents, and the relevance of each pair."""
    import bm25s

    collection = load(arguments.data, arguments.split)
    texts = collection.texts()
    ids, documents = list(texts), list(texts.values())
    queries = collection.queries.slice(0, arguments.queries).to_pylist()
    index = bm25s.BM25()
    index.index(bm25s.tokenize(documents, show_progress=False), show_progress=False)
    words = bm25s.tokenize([query["text"] for query in queries], show_progress=False)
    found = index.retrieve(words, k=arguments.depth, show_progress=False).documents
    relevant = {(row["query_id"], row["doc_id"]): row["relevance"] for row in collection.qrels.to_pylist()}
    lists = [(query["text"], [documents[row] for row in rows]) for query, rows in zip(queries, found, strict=True)]
    labels = [relevant.get((query["query_id"], ids[row]), 0) for query, rows in zip(queries, found, strict=True)
              for row in rows]  # fmt: skip
    return lists, np.array(labels, dtype=float)


def prepare(base: Path, model: str | None, max_length: int) -> None:
    """The same weights as a torch folder, as our exports, and as a folder with everything for auto."""
    import shutil

    from transformers import AutoTokenizer

    from ranker.optimization import ModelOptimizer
    from ranker.optimization.beside import export_beside

    if model is None:
        with_random_head(base / "torch")
    else:
        shutil.copytree(resolve(model), base / "torch", ignore=shutil.ignore_patterns(".*", "onnx"))
    tokenizer = AutoTokenizer.from_pretrained(base / "torch")
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(base / "torch")
    for precision in ("fp32", "int8"):
        done = ModelOptimizer(base / "torch").export_to_onnx(
            base / precision, quantize=precision == "int8", precision=precision, min_rank_correlation=0.9,
            max_ndcg_loss=1.0,
        )  # fmt: skip
        print(f"{precision}: {done.outcome}", file=sys.stderr)
    for copy in ("auto", "openvino"):
        shutil.copytree(base / "torch", base / copy, ignore=shutil.ignore_patterns(".*"))
    export_beside(base / "auto")


def with_random_head(folder: Path) -> None:
    """The bundled MiniLM with a seeded random head."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_pretrained(resolve(BUNDLED), num_labels=1)
    torch.nn.init.normal_(network.classifier.weight, std=1.0)
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve(BUNDLED)).save_pretrained(folder)


class Contestant:
    """A process that scores; ``row`` holds what was measured."""

    def __init__(self, name: str, base: Path, max_length: int, python: str = sys.executable) -> None:
        command = [python, str(Path(__file__).with_name("scoring_contestants.py")), name, str(base)]
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [*command, str(max_length)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        self.row: dict[str, Any] = {"wall": [], "cpu": [], "latencies": [], **self._answer()}
        self.row["start"] = time.perf_counter() - begin

    def ask(self, lists: Lists) -> dict[str, Any]:
        """Scores of the lists and what they took."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(lists) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # some peers have threads that never end
            self.process.kill()
            self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failed": "the process ended"}


def measure(names: list[str], base: Path, lists: Lists, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Name -> start, scores, seconds of each round over all lists, seconds of single lists, peak MiB."""
    others = [choice.split("=", 1) for choice in arguments.python]
    for part, _ in others:
        if not any(part in name for name in names):
            raise SystemExit(f"--python {part}=...: no contestant has {part!r} in its name: {', '.join(names)}")
    pythons = {name: own for part, own in others for name in names if part in name and not name.startswith("ranker")}
    contestants = {
        name: Contestant(name, base, arguments.max_length, pythons.get(name, sys.executable)) for name in names
    }
    alive = {name: peer for name, peer in contestants.items() if "failed" not in peer.row}
    for number in range(arguments.repeats):
        for peer in alive.values():
            answer = peer.ask(lists)
            peer.row["wall"].append(answer["wall"])
            peer.row["cpu"].append(answer["cpu"])
            peer.row["scores"] = [score for scores in answer["scores"] for score in scores]
        for one in lists[: 2 * arguments.repeats] if number == 0 else []:
            for peer in alive.values():
                answer = peer.ask([one])
                peer.row["latencies"].append(answer["wall"])
                peer.row["peak"] = answer["peak"]
    for peer in contestants.values():
        peer.close()
    return {name: peer.row for name, peer in contestants.items()}


def print_table(rows: dict[str, dict[str, Any]], lists: Lists, labels: np.ndarray) -> None:
    """One row a contestant, against the first; the failed ones below."""
    measured = {name: row for name, row in rows.items() if "failed" not in row}
    first = next(iter(measured.values()))
    pairs = [(query, text) for query, texts in lists for text in texts]
    print("\n| | pairs/s | CPU ms a pair | times the first, wall | CPU | one query p50, ms | p95 | peak, MiB | "
          "start, s | NDCG@10 against the first | Spearman |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, row in measured.items():
        wall, cpu = statistics.median(row["wall"]), statistics.median(row["cpu"])
        found, exact = np.array(row["scores"]), np.array(first["scores"])
        times = 1000 * np.array(row["latencies"])
        print(f"| {name} | {len(pairs) / wall:.1f} | {1000 * cpu / len(pairs):.1f} | "
              f"{statistics.median(first['wall']) / wall:.2f} | {statistics.median(first['cpu']) / cpu:.2f} | "
              f"{np.percentile(times, 50):.0f} | {np.percentile(times, 95):.0f} | {row['peak']:.0f} | "
              f"{row['start']:.1f} | {-ndcg_loss(exact, found, pairs, labels):+.4f} | "
              f"{float(spearmanr(found, exact).statistic):.5f} |")  # fmt: skip
    for name, row in rows.items():
        if "failed" in row:
            print(f"\nNot measured: {name}: {row['failed']}")


def work_of(folder: Path, lists: Lists, max_length: int) -> tuple[float, float]:
    """Tokens of a pair on the mean, and the floating-point operations of its matrix products in every layer."""
    from transformers import AutoConfig, AutoTokenizer

    from ranker.scoring.pairs import encode_pairs

    pairs = [(query, text) for query, texts in lists for text in texts]
    encoded = encode_pairs(AutoTokenizer.from_pretrained(folder), pairs, max_length)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=float)
    config = AutoConfig.from_pretrained(folder)
    width, inner = config.hidden_size, config.intermediate_size
    linear = 2 * (4 * width * width + 2 * width * inner) * lengths
    attention = 4 * width * lengths**2
    return float(lengths.mean()), float((config.num_hidden_layers * (linear + attention)).mean())


def print_peak(rows: dict[str, dict[str, Any]], flops: float) -> None:
    """What plain matrix products of the model's shapes reach on one core, and what share of it each row has."""
    print(f"\nMatrix products of a pair: {flops / 1e9:.2f} GFLOP. On one thread, (2048 x 384) x (384 x 1536), "
          "operations in a second of processor time:")  # fmt: skip
    peaks = {name: 1e9 * gflops for name, gflops in matrix_peaks().items()}
    for name, peak in peaks.items():
        print(f"- {name}: {peak / 1e9:.0f} G")
    for name, row in rows.items():
        if "failed" not in row and name.startswith("ranker"):
            speed = flops * len(row["scores"]) / statistics.median(row["cpu"])
            shares = ", ".join(f"{100 * speed / peak:.0f}% of {kind}" for kind, peak in peaks.items())
            print(f"- {name}: {speed / 1e9:.0f} G of the whole model's operations: {shares}")


def matrix_peaks() -> dict[str, float]:
    """GFLOP in a second of thread time of a plain product in each precision that the processor has."""
    import torch

    from ranker.machine import cpu_has_bf16

    torch.set_num_threads(1)
    left, right = torch.randn(2048, 384), torch.randn(1536, 384) / 20
    kinds: dict[str, Callable[[], Any]] = {"fp32": lambda: torch.nn.functional.linear(left, right)}
    if cpu_has_bf16():
        low, low_right = left.bfloat16(), right.bfloat16()
        kinds["bf16"] = lambda: torch.nn.functional.linear(low, low_right)
    scales = (right.abs().amax(1) / 127).double()
    weights = torch.quantize_per_channel(right, scales, torch.zeros_like(scales, dtype=torch.long), 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(weights, None)
    kinds["int8"] = lambda: torch.ops.quantized.linear_dynamic(left, packed, True)
    found = {}
    with torch.inference_mode():
        for name, product in kinds.items():
            product()
            times = []
            for _ in range(20):
                begin = time.thread_time()
                product()
                times.append(time.thread_time() - begin)
            found[name] = 2 * 2048 * 384 * 1536 / statistics.median(times) / 1e9
    return found


if __name__ == "__main__":
    main()
