import json

import pyarrow as pa
import pytest

from ranker.evaluation import Comparison, compare_runs
from ranker.schemas import QRELS


@pytest.fixture
def comparison(letters, first, after) -> Comparison:
    return compare_runs({"retriever": first, "reranked": after}, letters.qrels, ["mrr@10", "ndcg@10"])


def test_means_changes_and_counts_by_hand(comparison) -> None:
    assert comparison.means()["retriever"]["mrr@10"] == pytest.approx(2 / 3)
    assert comparison.change("retriever", "mrr@10").tolist() == [0.5, -0.5, 0.0]
    test = comparison.tests["retriever"]["mrr@10"]
    assert (test.wins, test.ties, test.losses, test.p_randomisation) == (1, 1, 1, 1.0)
    assert comparison.system == "reranked"
    assert comparison.best("mrr@10") == {"retriever", "reranked"}
    assert comparison.best("ndcg@10") == {"reranked"}


def test_the_p_values_of_a_measure_are_corrected_for_the_baselines(letters, ranked, first, after) -> None:
    runs = {"bm25": ranked(q1="b c", q2="a c", q3="a b"), "retriever": first, "reranked": after}
    comparison = compare_runs(runs, letters.qrels, ["mrr@10"])
    raw = {name: tests["mrr@10"].p_randomisation for name, tests in comparison.tests.items()}
    assert raw == {"bm25": pytest.approx(0.25), "retriever": 1.0}  # three of three rise: 2 of 8 sign patterns
    assert comparison.tests["bm25"]["mrr@10"].p_corrected == pytest.approx(0.5)


def test_plain_values_are_json_and_the_table_is_long(comparison) -> None:
    plain = json.loads(json.dumps(comparison.as_dict()))
    assert plain["means"]["reranked"]["mrr@10"] == pytest.approx(2 / 3)
    assert plain["counts"]["retriever"] == {
        "queries": 3, "missing_queries": 0, "queries_without_relevant": 0, "unjudged_queries": 0, "documents": 9,
        "unjudged_documents": 5, "tied_documents": 0,
    }  # fmt: skip
    assert plain["significance"]["retriever"]["mrr@10"]["wins"] == 1
    rows = comparison.per_query().to_pylist()
    assert len(rows) == 3 * 2 * 2
    assert {"query_id": "q1", "system": "reranked", "measure": "mrr@10", "value": 1.0} in rows


def test_the_first_run_can_be_the_baseline(letters, first, after, comparison) -> None:
    plain = compare_runs({"base": first, "new": after}, letters.qrels, ["ndcg@10"], pairs="first").as_dict()
    expected = comparison.tests["retriever"]["ndcg@10"].difference
    assert plain["significance"]["new"]["ndcg@10"]["difference"] == pytest.approx(expected)


def test_all_pairs_are_one_family(ranked, letters) -> None:
    queries = [f"q{number}" for number in range(12)]
    places = {"low": "x y z b", "middle": "x b y z", "high": "b x y z"}
    runs = {name: ranked(**dict.fromkeys(queries, documents)) for name, documents in places.items()}
    judged = pa.table([queries, ["b"] * 12, [1] * 12], schema=QRELS)
    found = compare_runs(runs, judged, ["mrr@10"], pairs="all", permutations=5000)
    assert list(found.pairs) == [("low", "middle"), ("low", "high"), ("middle", "high")]
    # All of twelve queries rise: 2 of 4,096 sign patterns, times the three pairs.
    assert found.tests["middle"]["mrr@10"].p_randomisation == pytest.approx(2 / 4096)
    assert found.tests["middle"]["mrr@10"].p_corrected == pytest.approx(3 * 2 / 4096)
    assert found.beaten_by("high", "mrr@10") == ["low", "middle"]
    assert found.beaten_by("middle", "mrr@10") == ["low"] and found.beaten_by("low", "mrr@10") == []
    assert len(found.as_dict()["tests"]) == 3
    uncorrected = compare_runs(runs, judged, ["mrr@10"], pairs="all", correction="none", permutations=5000)
    assert uncorrected.tests["low"]["mrr@10"].p_corrected == pytest.approx(2 / 4096)


def test_another_run_can_be_the_baseline(letters, first, after) -> None:
    found = compare_runs({"a": first, "b": after}, letters.qrels, ["mrr@10"], pairs="first", baseline="b")
    assert (found.baseline, found.system, list(found.pairs)) == ("b", "a", [("b", "a")])
    with pytest.raises(ValueError, match=r"baseline 'c' is none of the runs \['a', 'b'\]"):
        compare_runs({"a": first, "b": after}, letters.qrels, baseline="c")


def test_nothing_to_compare_is_an_error(letters, first) -> None:
    with pytest.raises(ValueError, match="no run"):
        compare_runs({}, letters.qrels)
    with pytest.raises(ValueError, match="no judgements"):
        compare_runs({"a": first}, QRELS.empty_table())
