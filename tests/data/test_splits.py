import pyarrow as pa
import pytest

from ranker.data.errors import DataError
from ranker.data.leakage import shared_documents, shared_queries
from ranker.data.splits import Splits, hold_out_missing, split_queries
from ranker.schemas import CORPUS, QRELS, QUERIES


def qrels(*rows: tuple[str, str, int]) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=QRELS)


def test_queries_that_share_a_relevant_document_stay_together() -> None:
    # q0-q1-q2 hang together by a and b, q3-q4 by c; grade 0 binds nothing.
    judged = qrels(
        ("q0", "a", 1), ("q1", "a", 2), ("q1", "b", 1), ("q2", "b", 1), ("q3", "c", 1), ("q4", "c", 1),
        ("q5", "d", 1), ("q5", "a", 0), ("q6", "e", 1), ("q7", "f", 1), ("q8", "g", 1), ("q9", "h", 1),
    )  # fmt: skip
    for seed in range(20):
        cut = split_queries(judged, {"dev": 0.2, "test": 0.3}, seed)
        homes = {q: name for name, table in cut.items() for q in table["query_id"].to_pylist()}
        assert len(homes) == 10 and sum(table.num_rows for table in cut.values()) == 12
        assert homes["q0"] == homes["q1"] == homes["q2"] and homes["q3"] == homes["q4"]
        relevant = {
            name: {row["doc_id"] for row in table.to_pylist() if row["relevance"] > 0} for name, table in cut.items()
        }
        assert not relevant["rest"] & relevant["test"] and not relevant["rest"] & relevant["dev"]
        sizes = {name: len(set(table["query_id"].to_pylist())) for name, table in cut.items()}
        assert sizes["dev"] <= 2 and sizes["test"] <= 3


def test_what_cannot_be_cut_is_refused_with_the_reason() -> None:
    judged = qrels(*[(f"q{n}", "hub", 1) for n in range(30)])
    with pytest.raises(DataError, match=r"30 queries hang together .* dev and test would be empty"):
        split_queries(judged, {"dev": 0.1, "test": 0.1}, 0)
    assert split_queries(judged, {"dev": 0.1}, 0, relevance_level=2)["dev"].num_rows == 3


def collection(count: int) -> Splits:
    ids = [f"q{n}" for n in range(count)]
    docs = [f"d{n // 2}" for n in range(count)]  # two queries a document
    return Splits(
        "made",
        pa.table([sorted(set(docs)), [""] * len(set(docs)), sorted(set(docs))], schema=CORPUS),
        pa.table([ids, [f"Question  {n // 4}" for n in range(count)]], schema=QUERIES),
        {"train": pa.table([ids, docs, [1] * count], schema=QRELS)},
    )


def test_held_out_queries_share_no_relevant_document_with_train_and_theirs_are_reserved() -> None:
    cut, held = hold_out_missing(collection(200), seed=5)
    assert held == ["dev", "test"] and not shared_documents(cut)
    train = cut.collection("train")
    held_out = {d for split in held for d in cut.qrels[split]["doc_id"].to_pylist()}
    assert train.reserved is not None and set(train.reserved.to_pylist()) == held_out
    assert cut.collection("test").reserved is None


def test_leakage_is_counted_by_document_and_by_question() -> None:
    data = collection(8)
    judged = data.qrels["train"]
    both = Splits(
        "made", data.corpus, data.queries, {"train": judged.slice(0, 5), "test": judged.slice(5)}, relevance_levels={}
    )
    assert shared_documents(both) == {"train/test": 1}  # d2 answers q4 and q5
    assert shared_queries(both) == {"train/test": 1}  # "question 1" is asked by q4 and by q5 to q7
