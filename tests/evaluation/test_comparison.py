import json

import pytest

from ranker.evaluation import Comparison, compare_runs
from ranker.evaluation.comparison import compare_with_first
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
    assert comparison.tests["bm25"]["mrr@10"].p_holm == pytest.approx(0.5)


def test_plain_values_are_json_and_the_table_is_long(comparison) -> None:
    plain = json.loads(json.dumps(comparison.as_dict()))
    assert plain["means"]["reranked"]["mrr@10"] == pytest.approx(2 / 3)
    assert plain["counts"]["retriever"] == {"missing": 0, "unjudged": 0, "ties": 0}
    assert plain["significance"]["retriever"]["mrr@10"]["wins"] == 1
    rows = comparison.per_query().to_pylist()
    assert len(rows) == 3 * 2 * 2
    assert {"query_id": "q1", "system": "reranked", "measure": "mrr@10", "value": 1.0} in rows


def test_the_first_run_can_be_the_baseline(letters, first, after, comparison) -> None:
    plain = compare_with_first({"base": first, "new": after}, letters.qrels, ["ndcg@10"])
    expected = comparison.tests["retriever"]["ndcg@10"].difference
    assert plain["significance"]["new"]["ndcg@10"]["difference"] == pytest.approx(expected)


def test_nothing_to_compare_is_an_error(letters, first) -> None:
    with pytest.raises(ValueError, match="no run"):
        compare_runs({}, letters.qrels)
    with pytest.raises(ValueError, match="no judgements"):
        compare_runs({"a": first}, QRELS.empty_table())
