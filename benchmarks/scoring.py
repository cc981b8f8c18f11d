"""Pairs a second of this project and of ``sentence_transformers.CrossEncoder``: same pairs, same weights, one run.

    python benchmarks/scoring.py BEIR_FOLDER_OR_ZIP [--model RERANKER] [--queries 4] [--depth 50] [--repeats 5]

The rows take turns within every round, so that a busy machine slows all of them alike; the median and the best
round are printed. Candidates are BM25's. Without ``--model``, the bundled MiniLM gets a seeded random head: that
has the speed of a trained one, and its scores lie closer together, so its rank correlations are lower bounds.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from ranker.config import ScoringConfig
from ranker.data.catalog import load
from ranker.machine import available_cpus, instruction_sets
from ranker.pretrained import BUNDLED, resolve
from ranker.scoring import load_scorer

Pairs = list[tuple[str, str]]
Score = Callable[[Pairs], np.ndarray]


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="collection in BEIR layout, folder or zip")
    parser.add_argument("--model", help="reranker folder; default: the bundled MiniLM with a random head")
    parser.add_argument("--split", default="test")
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--onnx", action="store_true", help="also export and measure ONNX fp32 and int8")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    by_query = candidates(arguments)
    with model_folder(arguments.model) as folder:
        rows = contestants(folder, arguments.max_length, arguments.onnx)
        scores, seconds, latencies = measure(rows, by_query, arguments.repeats)
        tokens = mean_tokens(folder, by_query, arguments.max_length)
    pairs = sum(map(len, by_query))
    print(f"{pairs} pairs ({len(by_query)} queries x {arguments.depth}), {tokens:.0f} tokens on the mean, limit "
          f"{arguments.max_length}; {arguments.repeats} rounds, interleaved; {available_cpus()} cores "
          f"({', '.join(instruction_sets())}); torch {torch.__version__}")  # fmt: skip
    print_table(scores, seconds, latencies, pairs)


def candidates(arguments: argparse.Namespace) -> list[Pairs]:
    """The first queries of the split with BM25's best documents."""
    import bm25s

    collection = load(arguments.data, arguments.split)
    texts = list(collection.texts().values())
    queries = collection.queries["text"].to_pylist()[: arguments.queries]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    found = index.retrieve(bm25s.tokenize(queries, show_progress=False), k=arguments.depth, show_progress=False)
    return [[(query, texts[row]) for row in rows] for query, rows in zip(queries, found.documents, strict=True)]


@contextmanager
def model_folder(model: str | None) -> Iterator[str]:
    """The reranker's folder; one with a seeded random head when none is named."""
    if model is not None:
        yield resolve(model)
        return
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        network = AutoModelForSequenceClassification.from_pretrained(resolve(BUNDLED), num_labels=1)
        torch.nn.init.normal_(network.classifier.weight, std=1.0)
        network.save_pretrained(folder)
        AutoTokenizer.from_pretrained(resolve(BUNDLED)).save_pretrained(folder)
        yield folder


def contestants(folder: str, max_length: int, with_onnx: bool) -> dict[str, Score]:
    """Row name -> a function from pairs to logits. The first is the reference."""
    from sentence_transformers import CrossEncoder

    rows: dict[str, Score] = {}
    for name, dtype in (("fp32 (its default)", torch.float32), ("bf16", torch.bfloat16)):
        peer = CrossEncoder(folder, device="cpu", max_length=max_length, model_kwargs={"dtype": dtype})
        rows[f"CrossEncoder.predict, {name}"] = lambda pairs, peer=peer: peer.predict(
            pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
    for precision in ("fp32", "bf16"):
        config = ScoringConfig(precision=precision, max_length=max_length, engine="torch")
        rows[f"ranker, torch {precision}"] = load_scorer(folder, config, "cpu").score
    if with_onnx:
        rows.update(onnx_rows(folder, max_length))
    return rows


def onnx_rows(folder: str, max_length: int) -> dict[str, Score]:
    """The same model exported; int8 is whatever recipe the export finds faithful."""
    from ranker.optimization import ModelOptimizer

    rows: dict[str, Score] = {}
    for precision in ("fp32", "int8"):
        done = ModelOptimizer(folder).export_to_onnx(
            Path(folder) / f"export-{precision}", quantize=precision == "int8", precision=precision,
            min_rank_correlation=0.98,
        )  # fmt: skip
        name = f"ranker, ONNX Runtime {precision} ({done.outcome['recipe']})"
        rows[name] = load_scorer(done.folder, ScoringConfig(max_length=max_length)).score
    return rows


def measure(
    rows: dict[str, Score], by_query: list[Pairs], repeats: int
) -> tuple[dict[str, np.ndarray], dict[str, list[float]], dict[str, list[float]]]:
    """Scores, seconds of every round over all pairs, and seconds of single queries, per row."""
    together = [pair for pairs in by_query for pair in pairs]
    scores = {name: np.asarray(score(together)) for name, score in rows.items()}  # and warm up
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    latencies: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(repeats):
        for name, score in rows.items():
            start = time.perf_counter()
            score(together)
            seconds[name].append(time.perf_counter() - start)
            start = time.perf_counter()
            score(by_query[number % len(by_query)])
            latencies[name].append(time.perf_counter() - start)
    return scores, seconds, latencies


def mean_tokens(folder: str, by_query: list[Pairs], max_length: int) -> float:
    """Mean length of a pair, truncated."""
    from transformers import AutoTokenizer

    from ranker.scoring.pairs import encode_pairs

    pairs = [pair for group in by_query for pair in group]
    encoded = encode_pairs(AutoTokenizer.from_pretrained(folder), pairs, max_length)
    return float(np.mean([len(ids) for ids in encoded["input_ids"]]))


def print_table(
    scores: dict[str, np.ndarray], seconds: dict[str, list[float]], latencies: dict[str, list[float]], pairs: int
) -> None:
    """One row a contestant, against the first."""
    first = next(iter(scores))
    base = statistics.median(seconds[first])
    print("\n| | pairs/s, median | best | times the first | one query, p50 | largest logit difference | Spearman |")
    print("|---|---|---|---|---|---|---|")
    for name, found in scores.items():
        median = statistics.median(seconds[name])
        difference = float(np.abs(found - scores[first]).max())
        correlation = float(spearmanr(found, scores[first]).statistic)
        speeds = f"{pairs / median:.1f} | {pairs / min(seconds[name]):.1f} | {base / median:.2f}"
        latency = 1000 * statistics.median(latencies[name])
        print(f"| {name} | {speeds} | {latency:.0f} ms | {difference:.1e} | {correlation:.5f} |")


if __name__ == "__main__":
    main()
