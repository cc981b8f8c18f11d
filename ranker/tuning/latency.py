"""Milliseconds that a trial's model takes to rerank one query: the other side of the Pareto front."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq

from ranker.config import ScoringConfig

QUERIES, REPEATS = 8, 3


def measure_latency(model: Path, groups: Path, scoring: ScoringConfig, depth: int, threads: int) -> float:
    """Median over some dev queries of the fastest of three calls, in milliseconds, after one that is not counted.

    Args:
        model: a model folder. groups: folder with ``dev_groups.parquet``. depth: candidates a query.
        threads: cores that it may use. Other trials on the same machine make it slower; the fastest of three calls
            suffers least.
    """
    import torch

    from ranker.scoring.scorer import load_scorer

    torch.set_num_threads(threads)
    scorer = load_scorer(str(model), scoring)
    rows = pq.read_table(groups / "dev_groups.parquet", columns=["query", "documents"]).slice(0, QUERIES).to_pylist()
    queries = [(row["query"], row["documents"][:depth]) for row in rows]
    return time_queries(lambda query, documents: scorer.score([(query, text) for text in documents]), queries)


def time_queries(score: Callable[[str, Sequence[str]], object], queries: Sequence[tuple[str, Sequence[str]]]) -> float:
    """Median over queries of the fastest call, in milliseconds."""
    score(*queries[0])
    return 1000 * median(min(_seconds(score, query, documents) for _ in range(REPEATS)) for query, documents in queries)


def _seconds(score: Callable[[str, Sequence[str]], object], query: str, documents: Sequence[str]) -> float:
    start = time.perf_counter()
    score(query, documents)
    return time.perf_counter() - start
