import math

import ir_measures
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import pytrec_eval
from ir_measures import AP, RR, P, R, Success, nDCG

from ranker.measures import MeasureError, evaluate_run, order_run, parse
from ranker.schemas import QRELS, RUN, SchemaError


def run_of(*rows: tuple[str, str, float, int]) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=RUN)


def qrels_of(*rows: tuple[str, str, int]) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=QRELS)


def random_tables(seed: int = 5) -> tuple[pa.Table, pa.Table]:
    """40 queries with graded labels, many equal scores; the run lacks three of them and has two that nobody judged."""
    rng = np.random.default_rng(seed)
    run, qrels = [], []
    for number in range(42):
        docs = rng.permutation(60)[:30]
        if number >= 3:
            scores = np.sort(rng.integers(0, 8, size=30))[::-1]
            run += [(f"q{number}", f"d{d}", float(s), r) for r, (d, s) in enumerate(zip(docs, scores, strict=True), 1)]
        if number < 40:
            qrels += [(f"q{number}", f"d{d}", int(g)) for d, g in zip(docs[::3], rng.integers(0, 4, 10), strict=True)]
    return run_of(*run), qrels_of(*qrels)


def test_two_queries_by_hand() -> None:
    # q1: the one relevant document stands second. q2: grades 2 and 1, the better one first, the other missed.
    run = run_of(("q1", "x", 9.0, 1), ("q1", "a", 8.0, 2), ("q2", "b", 1.0, 1))
    qrels = qrels_of(("q1", "a", 1), ("q2", "b", 2), ("q2", "c", 1))
    scores = evaluate_run(run, qrels, ["ndcg@10", "mrr@10", "map", "hit_rate@10", "recall@1"])
    assert scores.query_ids == ("q1", "q2")
    gain = 1 / math.log2(3)
    assert scores.values["ndcg@10"] == pytest.approx([gain, 2 / (2 + gain)])
    assert scores.values["mrr@10"].tolist() == [0.5, 1.0]
    assert scores.values["map"].tolist() == [0.5, 0.5]
    assert scores.means["hit_rate@10"] == 1.0
    assert scores.values["recall@1"].tolist() == [0.0, 0.5]


def test_a_missing_query_counts_as_zero_and_an_unjudged_one_not_at_all() -> None:
    run = run_of(("q1", "a", 1.0, 1), ("stranger", "a", 1.0, 1))
    scores = evaluate_run(run, qrels_of(("q1", "a", 1), ("q2", "a", 1)), ["mrr@10"])
    assert scores.means == {"mrr@10": 0.5}
    assert (scores.num_missing, scores.num_unjudged, scores.num_ties) == (1, 1, 0)


def test_equal_scores_keep_their_rank_whatever_the_tool_does() -> None:
    # trec_eval would put "z" first: it breaks ties by document id, descending.
    run = run_of(("q", "a", 1.0, 1), ("q", "z", 1.0, 2), ("q", "m", 2.0, 3))
    ordered = order_run(run)
    assert ordered["doc_id"].to_pylist() == ["m", "a", "z"]
    assert ordered["score"].to_pylist() == [3.0, 2.0, 1.0]
    assert evaluate_run(run, qrels_of(("q", "a", 1)), ["mrr@10"]).means["mrr@10"] == 0.5
    assert evaluate_run(run, qrels_of(("q", "a", 1))).num_ties == 2


def test_order_run_can_be_repeated() -> None:
    run, _ = random_tables()
    assert order_run(order_run(run)).equals(order_run(run))


ORACLES = {
    "ndcg@10": nDCG @ 10, "NDCG": nDCG, "mrr@10": RR @ 10, "mrr(rel=2)@10": RR(rel=2) @ 10, "map": AP,
    "map(rel=2)": AP(rel=2), "hit_rate@5": Success @ 5, "recall@20": R @ 20, "precision@5": P @ 5,
}  # fmt: skip


def test_figures_equal_ir_measures_called_directly() -> None:
    run, qrels = random_tables()
    scores = evaluate_run(run, qrels, list(ORACLES))
    frame = order_run(run).to_pandas()
    for name, measure in ORACLES.items():
        expected = {m.query_id: m.value for m in ir_measures.iter_calc([measure], qrels.to_pandas(), frame)}
        values = [expected.get(query_id, 0.0) for query_id in scores.query_ids]
        np.testing.assert_allclose(scores.values[name], values, atol=1e-9)


def test_figures_equal_trec_eval_on_the_ordered_run() -> None:
    run, qrels = random_tables(6)
    scores = evaluate_run(run, qrels, ["ndcg@10", "map", "mrr", "recall@20"])
    judged: dict[str, dict[str, int]] = {}
    for row in qrels.to_pylist():
        judged.setdefault(row["query_id"], {})[row["doc_id"]] = row["relevance"]
    listed: dict[str, dict[str, float]] = {}
    for row in order_run(run).to_pylist():
        listed.setdefault(row["query_id"], {})[row["doc_id"]] = row["score"]
    names = {"ndcg@10": "ndcg_cut_10", "map": "map", "mrr": "recip_rank", "recall@20": "recall_20"}
    found = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "map", "recip_rank", "recall.20"}).evaluate(listed)
    for ours, theirs in names.items():
        values = [found.get(query_id, {}).get(theirs, 0.0) for query_id in scores.query_ids]
        np.testing.assert_allclose(scores.values[ours], values, atol=1e-9)


def test_ids_stay_text() -> None:
    run, qrels = run_of(("01", "007", 1.0, 1)), qrels_of(("01", "007", 1), ("1", "7", 1))
    assert evaluate_run(run, qrels, ["mrr@10"]).values["mrr@10"].tolist() == [1.0, 0.0]


def test_an_empty_run_scores_zero() -> None:
    scores = evaluate_run(RUN.empty_table(), qrels_of(("q", "a", 1)))
    assert set(scores.means.values()) == {0.0} and scores.num_missing == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ndgc@10", "did you mean 'ndcg'"),
        ("hit_rate", "needs a cutoff, as in hit_rate@10"),
        ("mrr(depth=3)@10", "depth"),
        ("", "unknown measure ''"),
    ],
)
def test_a_bad_measure_is_named_with_what_would_do(name: str, says: str) -> None:
    with pytest.raises(MeasureError, match=says.replace("(", r"\(")):
        parse(name)


def test_another_table_is_refused_with_its_columns() -> None:
    with pytest.raises(SchemaError, match=r"missing columns \['relevance'\]"):
        evaluate_run(RUN.empty_table(), pa.Table.from_pandas(pd.DataFrame({"query_id": ["q"], "doc_id": ["d"]})))
