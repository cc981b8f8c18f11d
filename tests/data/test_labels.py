import logging
from typing import Any

import pyarrow as pa
import pytest

from ranker.data import DataPreprocessor
from ranker.data.errors import DataError
from ranker.schemas import CORPUS, ID_TRIPLES, QRELS, QUERIES, RUN, Collection


def table(schema: pa.Schema, *rows: tuple[Any, ...]) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[] for _ in schema], schema=schema)


def documents(*texts: str) -> pa.Table:
    return table(CORPUS, *((f"d{n}", "", text) for n, text in enumerate(texts)))


def collection(corpus: pa.Table, *judged: tuple[str, str, int], **more: Any) -> Collection:
    asked = dict.fromkeys(query_id for query_id, _, _ in judged)
    queries = table(QUERIES, *((query_id, f"{query_id}?") for query_id in asked))
    return Collection("made", "train", corpus, queries, table(QRELS, *judged), **more)


def doc_ids(made: Collection, num_negatives: int = 7) -> dict[str, set[str]]:
    groups = DataPreprocessor().create_groups(made, num_negatives).to_pylist()
    return {row["query_id"]: set(row["doc_ids"]) for row in groups}


@pytest.mark.parametrize("grade", [0, 1])
def test_a_copy_of_a_reserved_document_is_reserved_too(grade: int) -> None:
    # d0 answers a query of test; d1 has its text, with one word of it as the title.
    corpus = table(
        CORPUS, ("d0", "", "Cats purr"), ("d1", "Cats", "purr"), ("d2", "", "Dogs bark"), ("d3", "", "Hens lay")
    )
    made = collection(corpus, ("q", "d1", grade), ("q", "d2", 1), reserved=pa.array(["d0"]))
    assert doc_ids(made) == {"q": {"d2", "d3"}}
    texts = {text for triple in DataPreprocessor().create_triples(made) for text in triple[1:]}
    assert texts == {"Dogs bark", "Hens lay"}


def test_a_copy_of_a_reserved_document_is_in_no_triple_of_the_collection_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = table(ID_TRIPLES, ("q", "d1", "d2"), ("q", "d2", "d3"), ("q", "d2", "d1"), ("q", "d2", "gone"))
    corpus = documents("cats", "cats", "dogs", "hens")
    made = collection(corpus, ("q", "d2", 1), triples=own, reserved=pa.array(["d0"]))
    with caplog.at_level(logging.WARNING):
        assert DataPreprocessor().create_triples(made) == [("q?", "dogs", "hens")]
    assert (
        "of its 4 triples 0 name a query and 1 a document that is not there, 2 a document that answers" in caplog.text
    )


def test_documents_that_the_corpus_lacks_take_no_place_of_a_negative() -> None:
    # Thirty candidates and a judged negative are not there: the 20 negatives that are asked for are others.
    run = table(RUN, *(("q", f"gone{n}", -float(n), n + 1) for n in range(30)))
    corpus = documents(*(f"text {n}" for n in range(100)))
    made = collection(corpus, ("q", "d0", 1), ("q", "lost", 0), run=run)
    (groups,) = doc_ids(made, 20).values()
    assert len(groups) == 1 + 20
    # A relevant one that is not there asks for no negatives either.
    (groups,) = doc_ids(collection(corpus, ("q", "d0", 1), ("q", "lost", 1), run=run), 3).values()
    assert len(groups) == 1 + 3


def test_each_cause_of_no_example_is_counted_and_has_its_remedy() -> None:
    made = collection(
        documents("cats", "cats"),
        ("unjudged", "d1", 0),
        ("held", "d0", 1),
        ("gone1", "x", 1), ("gone2", "y", 2), ("gone3", "x", 1),
        reserved=pa.array(["d0"]),
    )  # fmt: skip
    with pytest.raises(DataError, match="no query has a relevant document and another one beside it: ") as error:
        DataPreprocessor().create_groups(made)
    for part in (
        "1 of 5 queries have no document that is judged 1 or above; add qrels",
        "3 of 5 queries have only relevant documents that are not in the corpus; add them",
        "1 of 5 queries have only relevant documents that answer queries of other splits too; give",
    ):
        assert part in str(error.value)
    with pytest.raises(DataError, match="1 of 1 queries have no document of another text beside the relevant ones"):
        DataPreprocessor().create_groups(collection(documents("cats", "cats"), ("q", "d0", 1)))
    with pytest.raises(DataError, match="it has no queries; name a split that is judged"):
        DataPreprocessor().create_groups(collection(documents("cats")))


def test_triples_of_the_collection_do_not_heed_a_number_of_negatives_and_say_so() -> None:
    own = table(ID_TRIPLES, ("q", "d0", "d1"))
    made = collection(documents("cats", "dogs", "hens"), ("q", "d0", 1), triples=own)
    for given in ({"num_negatives": 2}, {"random_ratio": 0.5}):
        with pytest.raises(DataError, match=r"brings 1 training triples of its own.*leave them out.*max_triples=0"):
            DataPreprocessor().create_triples(made, **given)
    assert DataPreprocessor().create_triples(made) == [("q?", "cats", "dogs")]


def test_an_empty_table_of_triples_is_none() -> None:
    made = collection(documents("cats", "dogs"), ("q", "d0", 1), triples=ID_TRIPLES.empty_table())
    assert DataPreprocessor().create_triples(made, 3) == [("q?", "cats", "dogs")]


def test_triples_that_name_nothing_that_is_there_are_counted() -> None:
    own = table(ID_TRIPLES, ("q", "d0", "x"), ("r", "d0", "d1"))
    made = collection(documents("cats", "dogs"), ("q", "d0", 1), triples=own)
    with pytest.raises(DataError, match="none of its 2 triples can be used: 1 name a query and 1 a document"):
        DataPreprocessor().create_triples(made)
