import numpy as np
import pyarrow as pa

from ranker.retrieval.bm25 import bm25_run, top_positions
from ranker.schemas import CORPUS, QUERIES, RUN


def corpus(*texts: str) -> pa.Table:
    return pa.table([[f"0{n}" for n in range(len(texts))], [""] * len(texts), list(texts)], schema=CORPUS)


def queries(*texts: str) -> pa.Table:
    return pa.table([[str(n) for n in range(len(texts))], list(texts)], schema=QUERIES)


def test_the_scores_are_those_of_the_formula() -> None:
    # Lucene's BM25, k1 1.5, b 0.75: idf = ln(1 + (N - df + 0.5) / (df + 0.5)), times tf / (tf + k1 (1 - b + b l / L)).
    run = bm25_run(corpus("dog dog cat", "cat", "bird song"), queries("DOG"), 5)
    idf, length = np.log(1 + (3 - 1 + 0.5) / (1 + 0.5)), 3 / 2
    expected = idf * 2 / (2 + 1.5 * (0.25 + 0.75 * length))
    assert run.schema == RUN
    assert run["doc_id"].to_pylist() == ["00"] and run["rank"].to_pylist() == [1]
    np.testing.assert_allclose(run["score"].to_pylist(), [expected], rtol=1e-5)


def test_equal_scores_stay_in_corpus_order_also_where_the_list_ends() -> None:
    run = bm25_run(corpus(*["cat"] * 9), queries("cat"), 4)
    assert run["doc_id"].to_pylist() == ["00", "01", "02", "03"]
    assert run["rank"].to_pylist() == [1, 2, 3, 4]


def test_queries_that_share_no_word_get_no_list() -> None:
    run = bm25_run(corpus("cat", "dog"), queries("zebra", "the", "", "dog"), 4)
    assert run.to_pylist()[0]["query_id"] == "3" and run.num_rows == 1


def test_the_title_counts_and_stopwords_do_not() -> None:
    table = pa.table([["a", "b"], ["Newts", ""], ["swim", "the the the"]], schema=CORPUS)
    assert bm25_run(table, queries("the newts"), 4)["doc_id"].to_pylist() == ["a"]


def test_an_empty_corpus_and_empty_queries_give_empty_runs() -> None:
    assert bm25_run(corpus(), queries("cat"), 3).num_rows == 0
    assert bm25_run(corpus("cat"), queries(), 3).num_rows == 0
    assert bm25_run(corpus("the"), queries("cat"), 3).num_rows == 0


def test_top_positions_are_those_of_a_full_stable_sort() -> None:
    scores = np.random.default_rng(0).integers(0, 5, size=100).astype(np.float32)
    full = [row for row in np.argsort(-scores, kind="stable") if scores[row] > 0]
    for k in (1, 7, 60, 200):
        assert top_positions(scores, k).tolist() == full[:k]
