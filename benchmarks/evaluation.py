"""How busy the scoring engine is while a run is scored: the share of the actors' time in which the network computes.

    python benchmarks/evaluation.py BEIR_FOLDER_OR_ZIP [--model RERANKER] [--queries N] [--depth 100] [--max-length 64]

Candidates are BM25's. A row is one way through the same pairs: one scorer in this process that takes every task in
turn, as a loop over ``CrossEncoder.predict`` would, and the actors of the stage, in which the next task is tokenised
meanwhile. The actors' time is from the start of their first task to the end of their last; what Ray and the models take
to start stands apart. ``--read N`` instead writes a run of N queries x 1,000 documents, reads and measures it, beside
pytrec_eval.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from ranker.config import RayConfig, ScoringConfig
from ranker.data.catalog import load
from ranker.data.formats import read_trec_run
from ranker.evaluation.candidates import sample_queries
from ranker.evaluation.lists import top_of
from ranker.evaluation.reranking import TimedEngine, score_distributed
from ranker.evaluation.tasks import Tasks, write_tasks
from ranker.machine import available_cpus, instruction_sets
from ranker.measures import evaluate_run
from ranker.pretrained import BUNDLED, resolve
from ranker.retrieval.bm25 import bm25_run
from ranker.schemas import QRELS, RUN
from ranker.scoring import load_scorer
from ranker.session import connected


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="collection in BEIR layout, folder or zip")
    parser.add_argument("--model", help="reranker folder; default: the bundled MiniLM with a random head")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--read", type=int, metavar="QUERIES", help="only read and measure a run of this size")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    if arguments.read:
        read_and_measure(arguments.read)
        return
    if not arguments.data:
        parser.error("name a collection, or --read QUERIES")
    with tempfile.TemporaryDirectory() as folder:
        busy(arguments, Path(folder))


def busy(arguments: argparse.Namespace, folder: Path) -> None:
    """Score the same pairs in both ways."""
    collection = sample_queries(load(arguments.data, "test"), arguments.queries, seed=13)
    run = bm25_run(collection.corpus, collection.queries, arguments.depth)
    tasks = write_tasks(top_of(run, arguments.depth), collection, folder / "tasks")
    model = arguments.model or random_head(folder / "model")
    scoring = ScoringConfig(max_length=arguments.max_length)
    print(f"{tasks.num_pairs:,} pairs ({collection.queries.num_rows:,} queries, {arguments.depth} deep), at most "
          f"{arguments.max_length} tokens; {available_cpus()} cores ({', '.join(instruction_sets())})\n")  # fmt: skip
    print("| way | pairs/s | engine busy | wall, s, with all starts |")
    print("|---|---|---|---|")
    print(in_turn(model, tasks, scoring))
    start = time.perf_counter()
    with connected(RayConfig()):
        found = score_distributed(
            str(model), tasks, folder / "scores", scoring=scoring, num_workers=arguments.workers
        )  # fmt: skip
        print(
            row(f"stage, {found.num_workers} actors", found.pairs_per_second, found.busy, time.perf_counter() - start)
        )


def in_turn(model: str | Path, tasks: Tasks, scoring: ScoringConfig) -> str:
    """Every task after the other, a tenth of them, in one process with a thread a core."""
    start = time.perf_counter()
    scorer = load_scorer(str(model), scoring)
    engine = scorer.engine = TimedEngine(scorer.engine)
    scorer.score(tasks.pairs(0, 32))
    engine.seconds, begun = 0.0, time.perf_counter()
    numbers = range(max(1, len(tasks) // 10))
    for number in numbers:
        scorer.score(tasks.of_task(number))
    took = time.perf_counter() - begun
    return row("in turn, a tenth of the pairs", tasks.edges[len(numbers)] / took, engine.seconds / took,
               time.perf_counter() - start)  # fmt: skip


def row(name: str, rate: float, share: float, seconds: float) -> str:
    """A line of the table."""
    return f"| {name} | {rate:,.0f} | {share:.1%} | {seconds:,.0f} |"


def random_head(folder: Path) -> Path:
    """The bundled MiniLM with a seeded random head: the speed of a trained one."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(resolve(BUNDLED), num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve(BUNDLED)).save_pretrained(folder)
    return folder


def read_and_measure(num_queries: int, depth: int = 1000) -> None:
    """A run of published form and depth: seconds to read it, and to measure it, beside pytrec_eval on plain dicts."""
    import pytrec_eval

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "run.trec"
        judged: dict[str, dict[str, int]] = {}
        with file.open("w") as stream:
            for query in range(num_queries):
                documents = rng.choice(8_800_000, depth, replace=False).tolist()
                scores = np.sort(rng.random(depth))[::-1].tolist()
                stream.writelines(
                    f"{query} Q0 {document} {rank} {score:.6f} run\n"
                    for rank, (document, score) in enumerate(zip(documents, scores, strict=True), 1)
                )
                judged[str(query)] = {str(documents[rng.integers(20)]): 1}
        start = time.perf_counter()
        run = read_trec_run(file)
        read = time.perf_counter() - start
        pairs = [(query, document, 1) for query, found in judged.items() for document in found]
        qrels = pa.table([list(column) for column in zip(*pairs, strict=True)], schema=QRELS)
        print(f"{run.num_rows:,} lines\n\n| step | s |\n|---|---|\n| read the run | {read:.1f} |")
        for measures in (["mrr@10"], ["ndcg@10", "mrr@10", "map", "recall@1000"]):
            start = time.perf_counter()
            evaluate_run(run, qrels, measures, ties="score")
            print(f"| {', '.join(measures)} | {time.perf_counter() - start:.1f} |")
        start = time.perf_counter()
        listed = plain(file)
        pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "recip_rank", "map", "recall.1000"}).evaluate(listed)
        print(f"| plain Python's dicts and pytrec_eval, read and measured | {time.perf_counter() - start:.1f} |")
        assert run.schema.names == RUN.names


def plain(file: Path) -> dict[str, dict[str, float]]:
    """A run file as pytrec_eval takes it, without any check."""
    listed: dict[str, dict[str, float]] = {}
    with file.open() as stream:
        for line in stream:
            query, _, document, _, score, _ = line.split()
            listed.setdefault(query, {})[document] = float(score)
    return listed


if __name__ == "__main__":
    main()
