import numpy as np
import pyarrow as pa
import pytest

from ranker.evaluation.lists import reordered, top_of, with_missed, with_tail
from ranker.schemas import QRELS, RUN
from ranker.scoring.rerank import rerank_run
from tests.evaluation.conftest import table


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


class Lengths:
    """Scores a pair by the length of its document: equal ones are many."""

    def score(self, pairs) -> np.ndarray:
        return np.array([len(document) for _, document in pairs], dtype=np.float32)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_one_scoring_gives_the_list_of_every_depth(letters, first, depth) -> None:
    texts = letters.texts()
    deepest = top_of(first, 3)
    scores = Lengths().score([("", texts[doc_id]) for doc_id in deepest["doc_id"].to_pylist()]).astype(np.float64)
    expected = rerank_run(Lengths(), first, letters.queries, texts, depth)
    assert reordered(deepest, scores, depth).equals(expected)


def test_missed_positives_are_added_below_only_where_the_corpus_holds_them(letters, ranked) -> None:
    relevant = table(QRELS, ("q1", "a", 1), ("q1", "c", 1), ("q2", "b", 1), ("q3", "gone", 1), ("other", "a", 1))
    whole = with_missed(top_of(ranked(q1="b a", q2="b"), 1), relevant, letters)
    assert whole.select(["query_id", "doc_id", "rank"]).to_pylist() == [
        {"query_id": "q1", "doc_id": "b", "rank": 1}, {"query_id": "q1", "doc_id": "a", "rank": 2},
        {"query_id": "q1", "doc_id": "c", "rank": 3}, {"query_id": "q2", "doc_id": "b", "rank": 1},
    ]  # fmt: skip
    assert whole["score"].to_pylist() == [2.0, 1.0, 0.0, 1.0]
    nothing_missed = top_of(ranked(q1="a c", q2="b"), 2)
    assert with_missed(nothing_missed, relevant, letters).equals(nothing_missed)
