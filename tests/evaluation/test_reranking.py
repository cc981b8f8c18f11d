import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.config import ScoringConfig
from ranker.evaluation.reranking import (
    cut_shards,
    progress_line,
    rerank_distributed,
    share_cores,
    texts_of,
    top_of,
    with_tail,
)
from ranker.schemas import RUN
from ranker.scoring.rerank import rerank_run
from ranker.scoring.scorer import load_scorer

FP32 = ScoringConfig(precision="fp32")


def test_top_of_counts_ranks_from_one_whatever_they_were(ranked) -> None:
    run = ranked(q1="a b c", q2="d")
    shifted = run.set_column(3, "rank", pa.array([4, 5, 6, 0], pa.int32()))
    assert top_of(shifted, 2).select(["doc_id", "rank"]).to_pylist() == [
        {"doc_id": "a", "rank": 1}, {"doc_id": "b", "rank": 2}, {"doc_id": "d", "rank": 1},
    ]  # fmt: skip


def test_the_tail_stays_below_in_its_own_order(ranked) -> None:
    reranked = pa.table([["q1", "q1"], ["b", "a"], [-3.0, -5.0], [1, 2]], schema=RUN)
    whole = with_tail(reranked, ranked(q1="a b c d", q2="e f"))
    assert whole["doc_id"].to_pylist() == ["b", "a", "c", "d", "e", "f"]
    assert whole["score"].to_pylist() == [-3.0, -5.0, -6.0, -7.0, -1.0, -2.0]
    assert whole["rank"].to_pylist() == [1, 2, 3, 4, 1, 2]
    assert with_tail(reranked, ranked(q1="a b")).equals(reranked)


def test_shards_hold_whole_queries_and_only_their_texts(letters, first) -> None:
    shards = list(cut_shards(first, letters, pairs_per_shard=5))
    assert [shard.queries["query_id"].to_pylist() for shard in shards] == [["q1", "q2"], ["q3"]]
    assert [shard.run.num_rows for shard in shards] == [6, 3]
    assert set(shards[1].texts) == {"a", "c", "d"}
    assert texts_of(first, letters) == letters.texts()


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


def test_the_distributed_list_is_the_one_of_a_single_scorer(
    letters, first, tiny_reranker, ray_cluster, tmp_path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(cut_shards, "__defaults__", (2,))
    caplog.set_level(logging.INFO)
    result = rerank_distributed(tiny_reranker, first, letters, 2, scoring=FP32, folder=tmp_path, num_workers=2)
    alone = rerank_run(load_scorer(tiny_reranker, FP32), first, letters.queries, letters.texts(), 2)
    assert result.run.select(["query_id", "doc_id", "rank"]).equals(alone.select(["query_id", "doc_id", "rank"]))
    np.testing.assert_allclose(result.run["score"], alone["score"], atol=1e-5)
    assert (result.num_pairs, result.num_workers, len(list(tmp_path.glob("part-*")))) == (6, 2, 3)
    assert result.pairs_per_second > 0 and len(result.latencies) == 1
    assert "reranked 6 of 6 pairs" in caplog.text

    # Killed after two shards: the third alone is scored again, the others are taken as they lie there.
    (tmp_path / "part-00002.parquet").unlink()
    marked = pq.read_table(tmp_path / "part-00000.parquet")
    pq.write_table(marked.set_column(2, "score", pa.array([99.0, 98.0])), tmp_path / "part-00000.parquet")
    again = rerank_distributed(tiny_reranker, first, letters, 2, scoring=FP32, folder=tmp_path, num_workers=2)
    assert again.run["score"].to_pylist()[:2] == [99.0, 98.0]
    assert again.run.slice(2).equals(result.run.slice(2))
    assert again.num_workers == 1


def test_an_empty_run_needs_no_actor(letters, tiny_reranker, tmp_path) -> None:
    empty = RUN.empty_table()
    assert rerank_distributed(tiny_reranker, empty, letters, 2, scoring=FP32, folder=tmp_path).run.num_rows == 0
