import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ranker.config import ScoringConfig
from ranker.data.stored import save_collection
from ranker.evaluation import reranking
from ranker.evaluation.lists import top_of
from ranker.evaluation.reranking import TimedEngine, progress_line, sample_of, score_distributed, share_cores
from ranker.evaluation.tasks import open_tasks, part, read_scores, score_task, write_tasks
from ranker.schemas import CORPUS, QRELS, QUERIES, RUN
from ranker.scoring.lanes import Lanes
from ranker.scoring.scorer import load_scorer

FP32 = ScoringConfig(precision="fp32")


@pytest.mark.parametrize(
    ("workers", "nodes", "expected"),
    [
        (2, [2], (2, 1)),
        (1, [2], (1, 2)),
        (4, [2], (2, 1)),  # never more actors than cores
        (2, [8], (2, 4)),
        (3, [4, 4], (3, 2)),
        (2, [3, 1], (2, 1)),  # two cores an actor would leave the second without a place
        (2, [0, 2.5], (2, 1)),
    ],
)
def test_cores_are_shared_so_that_all_actors_fit(workers, nodes, expected) -> None:
    assert share_cores(workers, nodes) == expected


def test_a_cluster_without_cores_is_refused() -> None:
    with pytest.raises(ValueError, match="no node of the cluster has a whole core"):
        share_cores(2, [0.5])


def test_the_progress_line_has_counts_rate_and_time_left() -> None:
    assert progress_line(512, 3072, 4.0) == "reranked 512 of 3,072 pairs, 128 pairs/s, 0:20 left"


def test_single_queries_are_spread_over_all_of_them() -> None:
    queries = [(row, row + 1) for row in range(100)]
    assert sample_of(queries, 3) == [(0, 1), (50, 51), (99, 100)]
    assert sample_of(queries[:2], 20) == queries[:2]


@pytest.mark.parametrize("lanes", [1, 2])
def test_an_engine_computes_a_batch_a_lane_at_a_time_and_counts_its_seconds(lanes: int) -> None:
    class Slow:
        name, precision, device = "slow", "fp32", "cpu"
        most = inside = 0
        pad_to_multiple_of = 1

        def __init__(self) -> None:
            self.lanes = Lanes(lanes, lanes, torch_threads=False)

        def logits(self, batch) -> np.ndarray:
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.02)
            self.inside -= 1
            return np.zeros(1, dtype=np.float32)

    slow = Slow()
    engine = TimedEngine(slow)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(engine.logits, [{}] * 6))
    assert slow.most == lanes
    assert 0.12 / lanes <= engine.seconds < 1  # six batches of 20 ms, over the lanes


def test_the_distributed_scores_are_those_of_a_single_scorer(
    letters, first, tiny_reranker, ray_cluster, tmp_path, caplog
) -> None:
    caplog.set_level(logging.INFO)
    tasks = write_tasks(top_of(first, 2), letters, tmp_path / "tasks", pairs_per_task=2)
    node = ray_cluster.get_runtime_context().get_node_id()
    how = {"scoring": FP32, "num_workers": 2, "depths": [2, 1], "latency_queries": 2, "node": node}
    folder = tmp_path / "scores"
    result = score_distributed(tiny_reranker, tasks, folder, **how)
    alone = load_scorer(tiny_reranker, FP32).score(tasks.pairs(0, 6))
    np.testing.assert_allclose(result.scores, alone, atol=1e-5)
    assert (result.num_workers, len(list(folder.glob("part-*")))) == (2, 3)
    assert result.pairs_per_second > 0 and 0 < result.busy <= 1
    assert {depth: len(times) for depth, times in result.latencies.items()} == {2: 2, 1: 2}
    assert "reranked 6 of 6 pairs" in caplog.text

    # Killed after two tasks: the third alone is scored again, the others are taken as they lie there.
    part(folder, 2).unlink()
    pq.write_table(pa.table({"score": [99.0, 98.0]}), part(folder, 0))
    again = score_distributed(tiny_reranker, tasks, folder, **how)
    assert again.scores[:2].tolist() == [99.0, 98.0]
    assert again.scores[2:].tolist() == result.scores[2:].tolist()
    assert "1 tasks to do" in caplog.text and again.latencies == result.latencies
    with pytest.raises(ValueError, match="no node of the cluster has a whole core"):  # and no other is taken
        score_distributed(tiny_reranker, tasks, tmp_path / "elsewhere", **{**how, "node": "0" * 56})


def test_two_tasks_at_once_have_a_tokenizer_each(letters, first, tiny_reranker, tmp_path, monkeypatch) -> None:
    tasks = write_tasks(top_of(first, 2), letters, tmp_path, pairs_per_task=2)
    threads = torch.get_num_threads()
    actor = reranking.ScoreTasks(tasks.folder, tmp_path / "scores", tiny_reranker, FP32, threads)
    (tmp_path / "scores").mkdir()
    both, used = threading.Barrier(2), []

    def spied(scorer, *task) -> None:
        used.append(scorer.tokenizer)
        both.wait(timeout=20)  # neither gives its own back before the other has one
        score_task(scorer, *task)

    monkeypatch.setattr(reranking, "score_task", spied)
    actor(pa.table({"task": [0, 1]}))
    assert len({id(tokenizer) for tokenizer in used}) == 2
    alone = load_scorer(tiny_reranker, FP32).score(tasks.pairs(0, 4))
    score_task(load_scorer(tiny_reranker, FP32), tasks, 2, tmp_path / "scores")
    np.testing.assert_allclose(read_scores(tasks, tmp_path / "scores")[:4], alone, atol=1e-5)


def test_an_empty_run_needs_no_actor(letters, tiny_reranker, tmp_path) -> None:
    tasks = write_tasks(top_of(RUN.empty_table(), 2), letters, tmp_path)
    assert score_distributed(tiny_reranker, tasks, tmp_path / "scores", scoring=FP32).scores.size == 0


KILLED = """
import sys, time
from ranker.config import RayConfig, ScoringConfig
from ranker.data.stored import open_collection
from ranker.evaluation import reranking
from ranker.evaluation.lists import top_of
from ranker.evaluation.tasks import write_tasks
from ranker.schemas import RUN, read_table
from ranker.session import connected
from pathlib import Path
data, work, model = map(Path, sys.argv[1:])
collection = open_collection(data, "test")
with connected(RayConfig(num_cpus=2)):
    tasks = write_tasks(top_of(read_table(data / "run.parquet", RUN), 300), collection, work / "tasks", 300)
    found = reranking.score_distributed(str(model), tasks, work / "scores", scoring=ScoringConfig(precision="fp32"))
print(len(found.scores), found.scores.sum())
"""


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_with_the_tasks_that_are_missing(tiny_reranker, tmp_path) -> None:
    queries = pa.table([[f"q{n:03d}" for n in range(60)], [f"letter {n}" for n in range(60)]], schema=QUERIES)
    corpus = pa.table(
        [[f"d{n}" for n in range(300)], [""] * 300, ["word " * (n % 50) for n in range(300)]], schema=CORPUS
    )
    qrels = pa.table([queries["query_id"], ["d0"] * 60, [1] * 60], schema=QRELS)
    data, work = tmp_path / "data", tmp_path / "work"
    save_collection(data, corpus, queries, {"test": qrels})
    rows = [(q, f"d{n}", float(-n), n + 1) for q in queries["query_id"].to_pylist() for n in range(300)]
    pq.write_table(pa.table([list(column) for column in zip(*rows, strict=True)], schema=RUN), data / "run.parquet")
    command = [sys.executable, "-c", KILLED, str(data), str(work), tiny_reranker]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while len(list((work / "scores").glob("part-*.parquet"))) < 4:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(3)  # actors see that their cluster is gone
    there = {file.name: file.stat().st_mtime_ns for file in (work / "scores").glob("part-*.parquet")}
    assert 4 <= len(there) < 60, "it was killed too late to tell"
    ended = subprocess.run(command, capture_output=True, text=True, timeout=250, check=True)
    kept = {file.name: file.stat().st_mtime_ns for file in (work / "scores").glob("part-*.parquet")}
    assert len(kept) == 60 and there.items() <= kept.items()  # none was written again
    pairs = open_tasks(work / "tasks").pairs(0, 18_000)
    expected = load_scorer(tiny_reranker, FP32).score(pairs).astype(np.float64).sum()
    number, total = ended.stdout.split()
    assert number == "18000" and float(total) == pytest.approx(expected, rel=1e-5)
