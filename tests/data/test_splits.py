import pyarrow as pa
import pytest

from ranker.data.errors import DataError
from ranker.data.leakage import shared_documents, shared_queries
from ranker.data.splits import Splits, hold_out_missing, rename_splits, split_queries, with_house_names
from ranker.schemas import CORPUS, ID_TRIPLES, QRELS, QUERIES, RUN


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


def test_queries_of_the_same_text_stay_together_whatever_their_case_and_white_space() -> None:
    judged = qrels(*((f"q{n}", f"d{n}", 1) for n in range(20)))
    texts = ["What  is it", " what is\u00a0IT\n", *(f"question {n}" for n in range(18))]
    asked = pa.table([[f"q{n}" for n in range(20)], texts], schema=QUERIES)
    apart = 0
    for seed in range(30):
        for queries in (None, asked):
            cut = split_queries(judged, {"dev": 0.3}, seed, queries=queries)
            homes = {q: name for name, table in cut.items() for q in table["query_id"].to_pylist()}
            if queries is None:
                apart += homes["q0"] != homes["q1"]
            else:
                assert homes["q0"] == homes["q1"]
    assert apart, "without their texts some seed parts the two"
    data = Splits("made", pa.table([[], [], []], schema=CORPUS), asked, {"train": judged})
    for seed in range(30):
        assert not shared_queries(hold_out_missing(data, seed)[0])


def test_triples_lose_those_of_held_out_queries_and_no_others() -> None:
    data = collection(40)
    # x is judged nowhere; y asks what q0 to q3 ask.
    queries = pa.concat_tables([data.queries, pa.table([["x", "y"], ["else", "question 0"]], schema=QUERIES)])
    asked = [*queries["query_id"].to_pylist()]
    triples = pa.table([asked, ["d0"] * 42, ["d1"] * 42], schema=ID_TRIPLES)
    made = Splits("made", data.corpus, queries, data.qrels, triples={"train": triples})
    for seed in range(10):
        cut, _ = hold_out_missing(made, seed)
        train = set(cut.qrels["train"]["query_id"].to_pylist())
        assert set(cut.triples["train"]["query_id"].to_pylist()) == {*train, "x", *({"y"} if "q0" in train else ())}


def test_a_split_may_have_triples_only_and_its_queries_are_those_that_they_ask() -> None:
    data = collection(8)
    triples = {"train": pa.table([["q6"], ["d3"], ["d0"]], schema=ID_TRIPLES), "dev": ID_TRIPLES.empty_table()}
    made = Splits("made", data.corpus, data.queries, {"test": data.qrels["train"].slice(0, 4)}, triples=triples)
    train = made.collection("train")
    assert made.names == ["test", "train"]
    assert train.queries["query_id"].to_pylist() == ["q6"] and train.qrels.num_rows == 0
    assert train.triples is not None and train.reserved is not None
    assert train.reserved.to_pylist() == ["d0", "d1"]
    assert rename_splits(made, {"train": "train", "dev": "dev", "test": "test"}).names == ["test", "train"]


def test_candidates_and_triples_of_other_splits_are_none_of_a_split() -> None:
    data = collection(8)
    judged = {"train": data.qrels["train"].slice(0, 4), "test": data.qrels["train"].slice(4)}
    run = pa.table([["q7"], ["d0"], [1.0], [1]], schema=RUN)
    triples = {"test": ID_TRIPLES.empty_table()}
    made = Splits("made", data.corpus, data.queries, judged, run, triples)
    assert made.collection("train").run is None
    assert made.collection("test").run == run and made.collection("test").triples is None


def test_usual_names_of_splits_are_known_and_a_chosen_one_must_be_there() -> None:
    data = collection(8)
    judged = data.qrels["train"]
    made = Splits(
        "made", data.corpus, data.queries, {"train": judged, "valid": judged, "testing": judged, "extra": judged},
        relevance_levels={"valid": 2},
    )  # fmt: skip
    house = with_house_names(made)
    assert sorted(house.qrels) == ["dev", "extra", "test", "train"] and house.relevance_levels == {"dev": 2}
    names = {"train": "train", "dev": "dev", "test": "test"}
    assert sorted(rename_splits(made, names, ["train", "dev"]).qrels) == ["dev", "test", "train"]
    with pytest.raises(
        DataError, match=r"data.dev_split 'vallid': made has no such split; did you mean 'valid'\?"
    ) as e:
        rename_splits(made, {**names, "dev": "vallid", "test": "tset"}, ["vallid", "tset"])
    assert "data.test_split 'tset'" in str(e.value) and "say null, to hold it out of train" in str(e.value)
    # Not chosen, and not there: it is held out later. A synonym that is chosen for another split is not taken twice.
    assert sorted(rename_splits(made, {**names, "dev": "none"}).qrels) == ["test", "train"]
    assert sorted(rename_splits(made, {**names, "test": "valid"}).qrels) == ["test", "train"]
    both = Splits("made", data.corpus, data.queries, {"dev": judged.slice(0, 1), "validation": judged})
    assert with_house_names(both).qrels == both.qrels


def test_a_source_without_judgements_says_so() -> None:
    data = collection(4)
    with pytest.raises(DataError, match=r"no split 'train': it holds no judgements and no training triples; add qrels"):
        Splits("made", data.corpus, data.queries).collection("train")
