"""A run in the scorer's order, with numbers that can be checked by hand."""

import numpy as np
import pyarrow as pa
import pytest

from ranker.schemas import QUERIES, RUN
from ranker.scoring.rerank import interpolate, rerank_run

QUERY_TABLE = pa.table({"query_id": ["1", "2"], "text": ["cat", "dog"]}, schema=QUERIES)
TEXTS = {"a": "1", "b": "3", "c": "2", "d": "2"}
ROWS = [("2", "a", 0.9, 1), ("1", "a", 10.0, 1), ("1", "b", 6.0, 2), ("1", "c", 5.0, 3), ("1", "d", 0.0, 4)]


class ByNumber:
    """Scores a text by the number it holds."""

    def score(self, pairs):
        return np.array([float(document) for _, document in pairs], dtype=np.float32)


def run(rows=ROWS) -> pa.Table:
    columns = list(zip(*rows, strict=True))
    return pa.table({name: list(column) for name, column in zip(RUN.names, columns, strict=True)}, schema=RUN)


def rows(table: pa.Table) -> list[tuple]:
    return [tuple(row.values()) for row in table.to_pylist()]


def test_the_scorer_orders_and_ties_keep_the_retriever_s_order():
    found = rows(rerank_run(ByNumber(), run(), QUERY_TABLE, TEXTS, depth=4))
    assert found == [("2", "a", 1.0, 1), ("1", "b", 3.0, 1), ("1", "c", 2.0, 2), ("1", "d", 2.0, 3), ("1", "a", 1.0, 4)]


def test_the_retriever_s_rank_decides_what_is_read_whatever_the_row_order():
    found = rows(rerank_run(ByNumber(), run(ROWS[::-1]), QUERY_TABLE, TEXTS, depth=2))
    assert found == [("1", "b", 3.0, 1), ("1", "a", 1.0, 2), ("2", "a", 1.0, 1)]


def test_interpolation_mixes_both_scaled_to_one():
    # reranker a 1, b 3, c 2, d 2 -> 0, 1, .5, .5; retriever 10, 6, 5, 0 -> 1, .6, .5, 0; a quarter of the second
    found = rows(rerank_run(ByNumber(), run(), QUERY_TABLE, TEXTS, depth=4, interpolation=0.25))[1:]
    assert [name for _, name, _, _ in found] == ["b", "c", "d", "a"]
    assert [score for _, _, score, _ in found] == pytest.approx([0.9, 0.5, 0.375, 0.25])
    only = rows(rerank_run(ByNumber(), run(), QUERY_TABLE, TEXTS, depth=4, interpolation=1.0))[1:]
    assert [name for _, name, _, _ in only] == ["a", "b", "c", "d"]


def test_unknown_ids_and_bad_numbers_are_refused():
    with pytest.raises(ValueError, match=r"1 doc_ids of it are not in the collection: 'z'"):
        rerank_run(ByNumber(), run([("1", "z", 1.0, 1)]), QUERY_TABLE, TEXTS, depth=3)
    with pytest.raises(ValueError, match=r"1 query_ids of it are not in the collection: '9'"):
        rerank_run(ByNumber(), run([("9", "a", 1.0, 1)]), QUERY_TABLE, TEXTS, depth=3)
    with pytest.raises(ValueError, match="depth 0"):
        rerank_run(ByNumber(), run(), QUERY_TABLE, TEXTS, depth=0)


def test_an_empty_run_stays_empty():
    assert rerank_run(ByNumber(), RUN.empty_table(), QUERY_TABLE, TEXTS, depth=3).num_rows == 0


def test_a_mixed_list_is_that_of_both_scores_scaled_to_0_1() -> None:
    reranked = run([("q", "a", 4.0, 1), ("q", "b", 2.0, 2), ("q", "c", 0.0, 3)])
    first = run([("q", "c", 3.0, 1), ("q", "b", 2.0, 2), ("q", "a", 1.0, 3), ("q", "far", 0.0, 4)])
    assert interpolate(reranked, first, 0.0) is reranked
    mixed = interpolate(reranked, first, 0.25).to_pylist()
    # a: 0.75 * 1 + 0.25 * 0; b: 0.75 * 0.5 + 0.25 * 0.5; c: 0.75 * 0 + 0.25 * 1
    assert [(row["doc_id"], row["rank"]) for row in mixed] == [("a", 1), ("b", 2), ("c", 3)]
    assert [row["score"] for row in mixed] == pytest.approx([0.75, 0.5, 0.25])
    # At equal weights all three meet at 0.5, and the retriever's order decides.
    assert [row["doc_id"] for row in interpolate(reranked, first, 0.5).to_pylist()] == ["c", "b", "a"]
