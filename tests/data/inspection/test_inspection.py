import json
import random
from dataclasses import astuple, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from ranker.data import parts
from ranker.data.errors import DataError
from ranker.data.inspection import copies
from ranker.data.inspection.copies import Copies, Some
from ranker.data.inspection.judged import Held, Spread
from ranker.data.inspection.overlap import Shared
from ranker.data.inspection.report import Inspection, inspect_source
from ranker.data.paths import open_path
from ranker.data.pieces import TablePiece
from ranker.data.source import Source
from ranker.schemas import CORPUS, QRELS, QUERIES, RUN

# Every trap, a line each. What should be found is said in the tests.
CORPUS_LINES = """\
{"_id": "007", "title": "Canaries", "text": "sing in the morning"}
{"_id": "7", "title": "", "text": "Canaries sing in the morning"}
{"_id": "d3", "title": "", "text": "dogs bark"}
{"_id": "d4", "title": " ", "text": ""}
{"_id": "d5", "title": "", "text": "dogs bark"}
{"_id": "d3", "title": "", "text": "another text under an id used before"}
{"_id": "d6", "title": "", "text": "  "}
{"_id": "d7", "title": "Cats", "text": "purr"}
"""
QUERY_LINES = """\
{"_id": "q1", "text": "Who  sings?"}
{"_id": "q2", "text": "who sings?"}
{"_id": "q3", "text": "what do dogs do"}
{"_id": "q4", "text": "what do cats do"}
{"_id": "q5", "text": "nobody judged this"}
"""
TRAIN = "q1\t007\t2\nq1\td3\t1\nq3\td3\t1\n"
TEST = "q2\t7\t1\nq2\td5\t1\nq4\td7\t0\nq4\td3\t-1\nq3\td3\t1\nq9\td7\t1\nq2\tlost\t1\nq2\tgone\t0\n"


def beir(folder: Path, corpus: str, queries: str, **qrels: str) -> Source:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(corpus)
    (folder / "queries.jsonl").write_text(queries)
    for split, lines in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    source = open_path(folder)
    assert isinstance(source, Source)
    return source


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    folder = tmp_path_factory.mktemp("trapped")
    source = beir(folder / "set", CORPUS_LINES, QUERY_LINES, train=TRAIN, test=TEST)
    return inspect_source(source, folder / "work")


def test_documents_and_queries_are_counted_once_and_repeated_ones_apart(trapped: Inspection) -> None:
    documents, queries = trapped.documents, trapped.queries
    assert (documents.documents, documents.with_title) == (7, 2)
    assert documents.empty == Some(2, ("d4", "d6"))
    assert documents.never_judged == 2  # d4 and d6
    assert (queries.queries, queries.empty, queries.unjudged) == (5, Some(), Some(1, ("q5",)))
    assert trapped.repeats.doc_ids == Some(1, ("d3",))
    # 007 and 7 are two ids; a model reads the same text of both. Empty documents are no copies of each other.
    assert trapped.repeats.documents == Copies(2, (("7", "007"), ("d5", "d3")))
    assert trapped.repeats.queries == Copies(1, (("q2", "q1"),))


def test_each_split_has_its_grades_its_gaps_and_its_missing_ids(trapped: Inspection) -> None:
    assert list(trapped.splits) == ["train", "test"]
    train, test = trapped.splits["train"], trapped.splits["test"]
    assert (train.queries, train.judgements, train.relevant, train.grades) == (2, 3, 3, {"1": 2, "2": 1})
    assert train.relevant_a_query == Spread(1, 1.5, 2)
    assert train.without_relevant == train.missing_documents == train.missing_queries == Some()
    assert (test.queries, test.judgements, test.relevant) == (4, 8, 5)
    assert test.grades == {"-1": 1, "0": 2, "1": 5}
    assert test.relevant_a_query == Spread(0, 1.25, 3)  # q4: none, q3 and q9: one, q2: three
    assert test.without_relevant == Some(1, ("q4",))
    assert test.missing_documents == Some(2, ("gone", "lost"))
    assert test.missing_queries == Some(1, ("q9",))


def test_splits_share_queries_by_id_and_text_and_documents_by_id_and_text(trapped: Inspection) -> None:
    # q3 is in both; q1 and q2 ask the same. d3 is relevant in both; 007 and 7, and d3 and d5, read the same.
    assert trapped.leakage == {"train/test": Shared(1, 2, 1, 2)}


def test_mistakes_are_those_for_which_the_source_would_be_refused(trapped: Inspection) -> None:
    assert trapped.mistakes.count == 3
    first, second, third = trapped.mistakes.some
    assert "corpus.jsonl, line 6: id 'd3' was already used at" in first and "line 3; ids must differ" in first
    assert "qrels test: 1 judged query_id is not in queries.jsonl: 'q9'; add them, or go on" in second
    assert "qrels test: 2 judged doc_ids are not in corpus.jsonl: 'gone', 'lost'" in third


def test_json_says_the_same(trapped: Inspection) -> None:
    plain = json.loads(json.dumps(trapped.as_dict()))
    assert plain == trapped.as_dict()
    assert plain["splits"]["test"]["missing_documents"] == {"count": 2, "some": ["gone", "lost"]}
    assert plain["repeats"]["documents"] == {"count": 2, "some": [["7", "007"], ["d5", "d3"]]}
    assert (plain["format"], plain["pieces"], plain["bytes"]) == ("beir", 1, len(CORPUS_LINES))


def test_it_goes_on_where_reading_to_use_would_stop(tmp_path: Path) -> None:
    corpus = '{"_id": "1", "text": "one"}\n{broken\n' + "[]\n" * 20 + '{"_id": "2", "text": "two"}\n'
    source = beir(tmp_path / "set", corpus, '{"_id": "q", "text": "which"}\n', test="q\t2\t1\nq\t1\tmany\n")
    found = inspect_source(source, tmp_path / "work")
    assert (found.documents.documents, found.splits["test"].grades) == (2, {"1": 1})
    assert (found.mistakes.count, len(found.mistakes.some)) == (22, 10)
    assert "corpus.jsonl, line 2: not JSON" in found.mistakes.some[0]


def test_missing_ids_may_be_allowed(tmp_path: Path) -> None:
    source = beir(tmp_path / "set", '{"_id": "1", "text": "x"}\n', '{"_id": "q", "text": "y"}\n', test="q\t2\t1\n")
    found = inspect_source(source, tmp_path / "work", allow_missing=True)
    assert (found.mistakes.count, found.splits["test"].missing_documents) == (0, Some(1, ("2",)))


def test_a_source_of_which_nothing_can_be_read_says_why_once(tmp_path: Path) -> None:
    def refused(*_: object) -> pa.Table:
        raise DataError("the set is not here; fetch it")

    nowhere = Source("nowhere", "test", [], queries=refused, qrels=refused, run=refused)
    with pytest.raises(DataError, match="nowhere: 1 mistake\n  the set is not here; fetch it"):
        inspect_source(nowhere, tmp_path)


def test_nothing_but_documents_is_no_mistake(tmp_path: Path) -> None:
    corpus = pa.table([["1"], [""], ["dogs bark"]], schema=CORPUS)
    found = inspect_source(Source("bare", "test", [TablePiece(corpus)]), tmp_path)
    assert (found.documents.documents, found.documents.never_judged, found.mistakes.count) == (1, 1, 0)
    assert found.splits == found.leakage == found.triples == {}
    assert found.query_lengths is None and found.candidates is None and found.examples is None


def test_an_empty_corpus_is_a_mistake(tmp_path: Path) -> None:
    source = beir(tmp_path / "set", "", '{"_id": "q", "text": "which"}\n', test="")
    found = inspect_source(source, tmp_path / "work")
    assert found.mistakes.count == 1
    assert "corpus.jsonl: holds no document" in found.mistakes.some[0]


def test_ids_and_judgements_that_a_reader_lets_through_twice_are_found(tmp_path: Path) -> None:
    corpus = pa.table([["1", "2"], ["", ""], ["one", "two"]], schema=CORPUS)
    queries = pa.table([["q", "p", "q"], ["a", None, "b"]], schema=QUERIES)
    qrels = pa.table([["q", "q", "p", "p"], ["1", "1", "2", "1"], [1, 2, 1, None]], schema=QRELS)
    source = Source(
        "twice", "test", [TablePiece(corpus)], lambda _: queries, lambda _: {"test": qrels}, queries_name="queries.x"
    )
    found = inspect_source(source, tmp_path)
    assert found.repeats.query_ids == Some(1, ("q",))
    assert found.repeats.judgements == Some(1, ("test: q 1",))
    assert found.queries.queries == 2 and found.queries.empty == Some(1, ("p",))
    assert found.splits["test"].grades == {"1": 2}
    assert found.mistakes.some == (
        "queries.x: 1 ids were used before: 'q'; ids must differ",
        "qrels test: null in 1 of 4 rows; fill or remove them",
    )


def test_candidates_are_measured_against_the_relevant_documents_of_their_queries(tmp_path: Path) -> None:
    corpus = pa.table([["1", "2", "3", "4"], [""] * 4, ["a", "b", "c", "d"]], schema=CORPUS)
    queries = pa.table([["q1", "q2", "q3"], ["x", "y", "z"]], schema=QUERIES)
    qrels = {
        "train": pa.table([["q3"], ["1"], [1]], schema=QRELS),
        "test": pa.table([["q1", "q1", "q1", "q2"], ["1", "2", "3", "4"], [3, 2, 1, 2]], schema=QRELS),
    }
    run = pa.table([["q1", "q1", "q1", "q0"], ["1", "3", "9", "1"], [3.0, 2.0, 1.0, 1.0], [1, 2, 3, 1]], schema=RUN)
    triples = {"train": pa.table({"query_id": ["q3", "q0"], "positive_id": ["1", "1"], "negative_id": ["8", "2"]})}
    source = Source(
        "ranked", "test", [TablePiece(corpus)], lambda _: queries, lambda _: qrels, lambda _: run, lambda _: triples,
        relevance_levels={"test": 2},
    )  # fmt: skip
    found = inspect_source(source, tmp_path)
    assert found.candidates is not None
    assert (found.candidates.lists, found.candidates.documents_a_list) == (2, Spread(1, 2, 3))
    assert found.candidates.missing_documents == Some(1, ("9",))
    assert found.candidates.missing_queries == Some(1, ("q0",))
    # From grade 2 on: 1 and 2 for q1, which has a list with 1 in it. q2 has no list.
    assert found.candidates.splits == {"test": Held(queries=1, relevant=2, held=1, share=0.5)}
    assert (found.splits["test"].relevant, found.splits["test"].relevance_level) == (3, 2)
    assert (found.triples["train"].triples, found.triples["train"].queries) == (2, 2)
    assert found.triples["train"].missing_documents == Some(1, ("8",))
    assert found.triples["train"].missing_queries == Some(1, ("q0",))


@pytest.fixture
def many_parts_and_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_ROWS", 300)
    monkeypatch.setattr(parts, "RANGE_ROWS", 256)
    monkeypatch.setattr(copies, "RANGE_ROWS", 256)


@pytest.mark.usefixtures("many_parts_and_ranges")
def test_thousands_of_rows_are_counted_as_pandas_counts_them(tmp_path: Path) -> None:
    rng = random.Random(3)
    docs = pd.DataFrame({"doc_id": [f"{rng.randrange(4000):04d}" for _ in range(3000)]})
    docs["title"] = [rng.choice(["", "Title", " "]) for _ in range(3000)]
    docs["text"] = [rng.choice(["", "text"]) + " " * rng.randrange(2) + str(rng.randrange(2500)) for _ in range(3000)]
    docs.loc[docs.sample(60, random_state=1).index, ["title", "text"]] = ""
    queries = pd.DataFrame({"query_id": [f"q{n}" for n in range(500)]})
    queries["text"] = [f"{rng.choice(['Ask', 'ask'])} {rng.randrange(300)}" for _ in range(500)]
    splits = {
        name: pd.DataFrame(
            {
                "query_id": [f"q{rng.randrange(low, low + 220)}" for _ in range(1500)],
                "doc_id": [f"{rng.randrange(4200):04d}" for _ in range(1500)],
                "relevance": [rng.choice([-2, 0, 0, 1, 2, 3]) for _ in range(1500)],
            }
        ).drop_duplicates(["query_id", "doc_id"])
        for name, low in (("train", 0), ("test", 200))
    }
    tables = {name: pa.Table.from_pandas(frame, QRELS, preserve_index=False) for name, frame in splits.items()}
    source = Source(
        "made", "test",
        [TablePiece(pa.Table.from_pandas(docs[low : low + 700], CORPUS)) for low in range(0, 3000, 700)],
        lambda _: pa.Table.from_pandas(queries, QUERIES), lambda _: tables,
        relevance_levels={"test": 2},
    )  # fmt: skip
    found = inspect_source(source, tmp_path)

    once = docs.drop_duplicates("doc_id")
    read = (once["title"] + " " + once["text"]).str.strip()
    assert len(list((tmp_path / "corpus").glob("*.parquet"))) > 5
    assert found.repeats.doc_ids.count == len(docs) - len(once) > 500
    assert found.documents.documents == len(once)
    assert found.documents.with_title == (once["title"].str.strip() != "").sum()
    assert found.documents.empty.count == (read == "").sum() > 0
    assert found.repeats.documents.count == (read.duplicated() & (read != "")).sum() > 50
    first_copy = once["doc_id"][read.duplicated() & (read != "")].iloc[0]
    assert found.repeats.documents.some[0][0] == first_copy
    assert found.repeats.queries.count == queries["text"].str.lower().duplicated().sum()
    everything = pd.concat(splits.values())
    assert found.queries.unjudged.count == (~queries["query_id"].isin(everything["query_id"])).sum()
    assert found.documents.never_judged == (~once["doc_id"].isin(everything["doc_id"])).sum()

    relevant = {
        name: frame[frame["relevance"] >= level] for (name, frame), level in zip(splits.items(), (1, 2), strict=True)
    }
    for name, frame in splits.items():
        counts = found.splits[name]
        sizes = relevant[name].groupby("query_id").size().reindex(frame["query_id"].unique(), fill_value=0)
        assert counts.relevant_a_query is not None
        assert astuple(counts.relevant_a_query) == pytest.approx((sizes.min(), sizes.mean(), sizes.max()))
        assert counts.without_relevant.count == (sizes == 0).sum() > 0
        assert counts.grades == {str(k): v for k, v in frame["relevance"].value_counts().sort_index().items()}
        lost = set(frame["doc_id"]) - set(once["doc_id"])
        assert counts.missing_documents.count == len(lost) > 0
        assert counts.missing_documents.some == tuple(sorted(lost)[:5])

    text_of = dict(zip(once["doc_id"], read, strict=True))
    asked = dict(zip(queries["query_id"], queries["text"].str.lower(), strict=True))
    ids = [set(frame["query_id"]) for frame in splits.values()]
    texts = [{asked[each] for each in group} for group in ids]
    docs_of = [set(frame["doc_id"]) for frame in relevant.values()]
    read_of = [{text_of[each] for each in group if text_of.get(each)} for group in docs_of]
    expected = [len(one & other) for one, other in (ids, texts, docs_of, read_of)]
    assert found.leakage == {"train/test": Shared(*expected)}
    assert min(expected) > 0


def test_the_same_numbers_whatever_the_number_of_pieces(pets: Path, tmp_path: Path) -> None:
    source = open_path(pets)
    assert isinstance(source, Source)
    corpus = pa.concat_tables(source.corpus[0].tables(parts.Mistakes("pets")))
    cut = replace(source, corpus=[TablePiece(corpus.slice(row, 3)) for row in range(0, corpus.num_rows, 3)])
    one, many = (inspect_source(each, tmp_path / str(len(each.corpus))) for each in (source, cut))
    assert many.pieces == 4
    assert replace(many, pieces=one.pieces, bytes=one.bytes) == one
