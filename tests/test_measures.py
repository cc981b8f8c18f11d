import json
import math
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import pytrec_eval
from ir_measures import AP, RR, Judged, P, R, Success, nDCG

from ranker.evaluation.runs import open_qrels
from ranker.measures import Counts, MeasureError, evaluate_run, order_run, tie_range
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
    assert scores.counts == Counts(2, 1, 0, 1, 1, 0, 0)


def test_equal_scores_keep_their_rank_whatever_the_tool_does() -> None:
    # trec_eval would put "z" first: it breaks ties by document id, descending.
    run = run_of(("q", "a", 1.0, 1), ("q", "z", 1.0, 2), ("q", "m", 2.0, 3))
    ordered = order_run(run)
    assert ordered["doc_id"].to_pylist() == ["m", "a", "z"]
    assert ordered["score"].to_pylist() == [3.0, 2.0, 1.0]
    assert evaluate_run(run, qrels_of(("q", "a", 1)), ["mrr@10"]).means["mrr@10"] == 0.5
    assert evaluate_run(run, qrels_of(("q", "a", 1))).counts.tied_documents == 2


def test_order_run_can_be_repeated() -> None:
    run, _ = random_tables()
    assert order_run(order_run(run)).equals(order_run(run))


ORACLES = {
    "ndcg@10": nDCG @ 10, "NDCG": nDCG, "mrr@10": RR @ 10, "mrr(rel=2)@10": RR(rel=2) @ 10, "MRR": RR, "map": AP,
    "map(rel=2)": AP(rel=2), "map@20": AP @ 20, "hit_rate@5": Success @ 5, "Hit Rate@1": Success @ 1,
    "success(rel=3)@10": Success(rel=3) @ 10, "Recall@20": R @ 20, "recall(rel=2)@100": R(rel=2) @ 100,
    "P@5": P @ 5, "precision(rel=2)@10": P(rel=2) @ 10, "judged@10": Judged @ 10,
    "ndcg(gains={0: 0, 1: 1, 2: 3, 3: 7})@10": nDCG(gains={0: 0, 1: 1, 2: 3, 3: 7}) @ 10,
}  # fmt: skip
# ours -> (relevance level, trec_eval's name)
TREC_EVAL = {
    "ndcg@10": (1, "ndcg_cut_10"), "ndcg": (1, "ndcg"), "map": (1, "map"), "map(rel=2)": (2, "map"),
    "map_cut_10": (1, "map_cut_10"), "mrr": (1, "recip_rank"), "recip_rank(rel=2)": (2, "recip_rank"),
    "recall_20": (1, "recall_20"), "recall(rel=2)@20": (2, "recall_20"), "P_5": (1, "P_5"),
    "hit_rate(rel=2)@10": (2, "success_10"),
}  # fmt: skip


def pets_run(pets: Path, split: str) -> tuple[pa.Table, pa.Table]:
    """The shipped collection's judgements, and a run of all its documents whose scores are mostly equal."""
    qrels = open_qrels(pets / "qrels" / f"{split}.tsv")
    doc_ids = [json.loads(line)["_id"] for line in (pets / "corpus.jsonl").read_text().splitlines()]
    queries = sorted(set(qrels["query_id"].to_pylist()))
    rows = [(q, d, float((n * 7 + len(q)) % 3), n + 1) for q in queries for n, d in enumerate(doc_ids)]
    return run_of(*rows), qrels


@pytest.fixture(params=["random", "train", "dev", "test"])
def measured(request, pets) -> tuple[pa.Table, pa.Table]:
    return random_tables() if request.param == "random" else pets_run(pets, request.param)


@pytest.mark.parametrize("ties", ["rank", "score"])
def test_figures_equal_ir_measures_called_directly(measured, ties) -> None:
    run, qrels = measured
    scores = evaluate_run(run, qrels, list(ORACLES), ties=ties)
    frame = (order_run(run) if ties == "rank" else run).to_pandas()
    for name, measure in ORACLES.items():
        expected = {m.query_id: m.value for m in ir_measures.iter_calc([measure], qrels.to_pandas(), frame)}
        np.testing.assert_allclose(scores.values[name], [expected[q] for q in scores.query_ids], rtol=0, atol=1e-9)
        total = ir_measures.calc_aggregate([measure], qrels.to_pandas(), frame)[measure]
        assert scores.means[name] == pytest.approx(total, abs=1e-9)


def test_gains_of_one_measure_do_not_reach_another() -> None:
    # Asked for together, in this order, ir-measures 0.4.3 gives both the gains of the first.
    run, qrels = random_tables()
    names = ["ndcg(gains={0: 0, 1: 1, 2: 3, 3: 7})@10", "ndcg@10"]
    both = evaluate_run(run, qrels, names).means
    assert both == {name: evaluate_run(run, qrels, [name]).means[name] for name in names}
    assert both[names[0]] != both[names[1]]


@pytest.mark.parametrize("ties", ["rank", "score"])
def test_figures_equal_trec_eval(measured, ties) -> None:
    run, qrels = measured
    scores = evaluate_run(run, qrels, list(TREC_EVAL), ties=ties)
    judged = nested(qrels, "relevance")
    listed = nested(order_run(run) if ties == "rank" else run, "score")
    for name, (level, theirs) in TREC_EVAL.items():
        asked = theirs if theirs in ("ndcg", "map", "recip_rank") else theirs[::-1].replace("_", ".", 1)[::-1]
        found = pytrec_eval.RelevanceEvaluator(judged, {asked}, relevance_level=level).evaluate(listed)
        values = [found.get(query_id, {}).get(theirs, 0.0) for query_id in scores.query_ids]
        np.testing.assert_allclose(scores.values[name], values, rtol=0, atol=1e-9)


def nested(table: pa.Table, value: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        found.setdefault(row["query_id"], {})[row["doc_id"]] = row[value]
    return found


def test_scores_that_single_precision_cannot_tell_apart_are_ties() -> None:
    # trec_eval holds scores in 32 bits: there 10.00000001 is 10, and "z" comes before "a".
    run, qrels = run_of(("q", "a", 10.00000001, 1), ("q", "z", 10.0, 2)), qrels_of(("q", "a", 1))
    assert pytrec_eval.RelevanceEvaluator(nested(qrels, "relevance"), {"recip_rank"}).evaluate(
        nested(run, "score")
    ) == {"q": {"recip_rank": 0.5}}
    assert evaluate_run(run, qrels, ["mrr"], ties="score").means["mrr"] == 0.5
    assert evaluate_run(run, qrels, ["mrr"]).means["mrr"] == 1.0
    assert evaluate_run(run, qrels, ["mrr"]).counts.tied_documents == 2


def test_what_ties_could_change_is_said() -> None:
    # Three equal scores, one of them relevant: it may stand first or third, behind the one that is not tied.
    run = run_of(("q", "x", 2.0, 1), ("q", "a", 1.0, 2), ("q", "b", 1.0, 3), ("q", "c", 1.0, 4))
    qrels = qrels_of(("q", "b", 1), ("q", "c", 0))
    for rule in ("rank", "score"):
        scores = evaluate_run(run, qrels, ["mrr", "judged@2"], ties=rule)
        assert tie_range(run, qrels, scores) == {
            "mrr": (pytest.approx(1 / 4), pytest.approx(1 / 2)), "judged@2": (0.0, 0.5),
        }  # fmt: skip


def test_the_range_of_ties_holds_the_figures_of_both_rules() -> None:
    run, qrels = random_tables()
    names = ["ndcg@10", "map", "mrr@10", "recall@20", "judged@10"]
    by_rank, by_score = (evaluate_run(run, qrels, names, ties=rule) for rule in ("rank", "score"))
    for name, (low, high) in tie_range(run, qrels, by_rank).items():
        assert low - 1e-12 <= min(by_rank.means[name], by_score.means[name])
        assert max(by_rank.means[name], by_score.means[name]) <= high + 1e-12 and low < high
    strict = order_run(run)
    scores = evaluate_run(strict, qrels, names)
    assert tie_range(strict, qrels, scores) == {name: (mean, mean) for name, mean in scores.means.items()}


def test_documents_and_queries_without_judgement_are_counted() -> None:
    run = run_of(("q1", "a", 3.0, 1), ("q1", "new", 2.0, 2), ("q2", "b", 1.0, 1), ("other", "a", 1.0, 1))
    qrels = qrels_of(("q1", "a", 1), ("q1", "b", 0), ("q2", "b", 0), ("q3", "a", 2))
    counts = evaluate_run(run, qrels, ["mrr@10"]).counts
    assert counts.as_dict() == {
        "queries": 3, "missing_queries": 1, "queries_without_relevant": 1, "unjudged_queries": 1, "documents": 3,
        "unjudged_documents": 1, "tied_documents": 0,
    }  # fmt: skip
    assert evaluate_run(run, qrels, ["mrr@10"], relevance_level=2).counts.queries_without_relevant == 2


def test_binary_measures_of_trec_dl_count_from_two_on_and_ndcg_does_not() -> None:
    run, qrels = run_of(("q", "a", 2.0, 1), ("q", "b", 1.0, 2)), qrels_of(("q", "a", 1), ("q", "b", 3))
    level_two = evaluate_run(run, qrels, ["mrr@10", "map", "hit_rate@1", "ndcg@10"], relevance_level=2).means
    assert (level_two["mrr@10"], level_two["map"], level_two["hit_rate@1"]) == (0.5, 0.5, 0.0)
    assert level_two["ndcg@10"] == evaluate_run(run, qrels, ["ndcg@10"]).means["ndcg@10"]
    assert evaluate_run(run, qrels, ["mrr(rel=1)@10"], relevance_level=2).means == {"mrr(rel=1)@10": 1.0}


def test_a_document_that_stands_twice_is_refused() -> None:
    with pytest.raises(SchemaError, match="1 documents stand twice in the list of a query, such as 'a' in that of 'q'"):
        evaluate_run(run_of(("q", "a", 2.0, 1), ("q", "a", 1.0, 2)), qrels_of(("q", "a", 1)))
    with pytest.raises(SchemaError, match="1 scores are not a number, such as that of document 'a'"):
        evaluate_run(run_of(("q", "a", math.nan, 1)), qrels_of(("q", "a", 1)))


def test_ids_stay_text() -> None:
    run, qrels = run_of(("01", "007", 1.0, 1)), qrels_of(("01", "007", 1), ("1", "7", 1))
    assert evaluate_run(run, qrels, ["mrr@10"]).values["mrr@10"].tolist() == [1.0, 0.0]


def test_an_empty_run_scores_zero() -> None:
    scores = evaluate_run(RUN.empty_table(), qrels_of(("q", "a", 1)))
    assert set(scores.means.values()) == {0.0} and scores.counts.missing_queries == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ndgc@10", "did you mean 'ndcg'"),
        ("hit_rate", "needs a cutoff, as in hit_rate@10"),
        ("mrr(depth=3)@10", "depth"),
        ("", "unknown measure ''"),
        ("ndcg@0", "must be at least 1"),
        ("mrr(rel='two')@10", "rel"),
        ("mrr(judged_only=True)@10", "cannot compute"),
        ("ndcg(dcg='exp-log2')@10", "gains={0: 0"),
    ],
)
def test_a_bad_measure_is_named_with_what_would_do(name: str, says: str) -> None:
    with pytest.raises(MeasureError, match=says.replace("(", r"\(")):
        evaluate_run(run_of(("q", "a", 1.0, 1)), qrels_of(("q", "a", 1)), [name])


def test_another_table_is_refused_with_its_columns() -> None:
    with pytest.raises(SchemaError, match=r"missing columns \['relevance'\]"):
        evaluate_run(RUN.empty_table(), pa.Table.from_pandas(pd.DataFrame({"query_id": ["q"], "doc_id": ["d"]})))
