import pickle
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pytest

from ranker.data.errors import DataError, Mistakes
from ranker.data.formats.layouts import recognise
from ranker.schemas import EXAMPLES, document_texts

Record = Mapping[str, Any]


def row_of(record: Record, *, layout: str | None = None, columns: dict[str, str] | None = None) -> dict[str, Any]:
    """The one record as a row of EXAMPLES, through a layout that was sent to another process."""
    found = recognise(list(record), [record], layout=layout, columns=columns)
    mistakes = Mistakes("file")
    row = pickle.loads(pickle.dumps(found)).row(record, lambda: "line 1", mistakes)
    mistakes.raise_if_any()
    assert row is not None
    return dict(zip(EXAMPLES.names, row, strict=True))


def mistakes_of(good: Record, bad: Record) -> list[str]:
    """What is said of a record where a good one before it told the layout."""
    found, mistakes = recognise(list(good), [good]), Mistakes("file")
    assert found.row(bad, lambda: "line 2", mistakes) is None
    return mistakes.found


def group(documents: list[str], labels: list[float], **others: Any) -> dict[str, Any]:
    hashed = blake2b(b"who sings", digest_size=8).hexdigest()
    known = {"query_id": hashed, "query": "who sings", "doc_ids": None, "scores": None}
    return {**known, "documents": documents, "labels": labels, **others}


Q = {"query": "who sings"}
PASSAGES = {
    "positive_passages": [{"docid": "007", "title": "Canary", "text": "sings"}],
    "negative_passages": [{"docid": 8, "title": "", "text": "a dog"}, {"docid": "09", "title": None, "text": "a cat"}],
}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({**Q, "pos": ["a"], "neg": ["x", "y"]}, group(["a", "x", "y"], [1, 0, 0])),
        ({**Q, "pos": ["a", "b"]}, group(["a", "b"], [1, 1])),
        ({**Q, "pos": "a", "neg": "x", "id": 7}, group(["a", "x"], [1, 0], query_id="7")),
        ({**Q, "pos": ["a"], "neg": [], "prompt": "p", "type": "normal"}, group(["a"], [1])),
        (
            {"query_id": "007", **Q, "pos": ["a"], "neg": ["x"], "pos_scores": [9.5], "neg_scores": [-1]},
            group(["a", "x"], [1, 0], query_id="007", scores=[9.5, -1]),
        ),
        ({**Q, "pos": ["a"], "neg": ["x"], "pos_scores": [2]}, group(["a", "x"], [1, 0], scores=[2, None])),
    ],
)  # fmt: skip
def test_flagembedding(record: Record, expected: Record) -> None:
    assert row_of(record) == expected


def test_tevatron_joins_title_and_text_as_the_corpus_does_and_keeps_ids() -> None:
    row = row_of({"query_id": "01", **Q, "query_image": None, **PASSAGES})
    assert row == group(["Canary sings", "a dog", "a cat"], [1, 0, 0], query_id="01", doc_ids=["007", "8", "09"])
    every = [*PASSAGES["positive_passages"], *PASSAGES["negative_passages"]]
    corpus = pa.table({name: [passage[name] for passage in every] for name in ("title", "text")})
    assert row["documents"] == document_texts(corpus)


def test_tevatron_takes_its_newer_name_for_the_query_and_passages_without_ids() -> None:
    record = {"query_text": "who sings", "positive_passages": [{"text": "a"}], "negative_passages": None}
    assert row_of(record) == group(["a"], [1])


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"anchor": "who sings", "positive": "a"}, group(["a"], [1])),
        ({"one": "who sings", "two": "a"}, group(["a"], [1])),
        ({"one": "who sings", "two": "a", "three": "x"}, group(["a", "x"], [1, 0])),
        ({**Q, "positive": "a", "negative": "x"}, group(["a", "x"], [1, 0])),
        ({"negative": "x", "positive": "a", **Q}, group(["a", "x"], [1, 0])),
        ({**Q, "positive": "a", "negative_1": "x", "negative_2": None, "negative_3": "y"},
         group(["a", "x", "y"], [1, 0, 0])),
        ({**Q, "positive": "a", "negatives": ["x", "y"]}, group(["a", "x", "y"], [1, 0, 0])),
        ({**Q, "positives": ["a", "b"], "negatives": ["x"]}, group(["a", "b", "x"], [1, 1, 0])),
        ({"sentence1": "who sings", "sentence2": "a", "label": 1}, group(["a"], [1])),
        ({"sentence1": "who sings", "sentence2": "a", "score": 0.25}, group(["a"], [0.25])),
        ({"idx": 3, "sentence1": "who sings", "sentence2": "a", "label": False}, group(["a"], [0])),
        ({"label": 2.0, "document": "a", **Q}, group(["a"], [2])),
        ({"query_id": "007", **Q, "document": "a", "doc_id": "01", "label": 1, "score": 3.5},
         group(["a"], [1], query_id="007", doc_ids=["01"], scores=[3.5])),
        ({**Q, "docs": ["a", "x"], "labels": [1, 0]}, group(["a", "x"], [1, 0])),
        ({**Q, "passages": ["a", "x"], "grades": [0.5, 0]}, group(["a", "x"], [0.5, 0])),
        ({"labels": [3, 1], "candidates": ["a", "x"], "question": "who sings"}, group(["a", "x"], [3, 1])),
        ({**Q, "passage1": "a", "passage2": "x", "label": 4.5}, group(["a", "x"], [1, 0], scores=[4.5, 0])),
        ({**Q, "positive": "a", "negative": "x", "label": [7, 3]}, group(["a", "x"], [1, 0], scores=[7, 3])),
        ({**Q, "positive": "a", "negative_1": "x", "negative_2": "y", "label": [7, 3, None]},
         group(["a", "x", "y"], [1, 0, 0], scores=[7, 3, None])),
        ({**Q, "positive": "a", "negatives": ["x", "y"], "scores": [7, 3, 1]},
         group(["a", "x", "y"], [1, 0, 0], scores=[7, 3, 1])),
    ],
)  # fmt: skip
def test_sentence_transformers(record: Record, expected: Record) -> None:
    assert row_of(record) == expected


def test_margins_over_several_negatives_keep_their_differences() -> None:
    record = {**Q, "positive": "a", "negative_1": "x", "negative_2": "y", "label": [4.0, 6.5]}
    scores = row_of(record)["scores"]
    assert [scores[0] - score for score in scores[1:]] == [4.0, 6.5]


def test_ms_marco_in_both_of_its_versions() -> None:
    expected = group(["a", "x"], [1, 0], query_id="19699")
    lists = {"is_selected": [1, 0], "passage_text": ["a", "x"], "url": ["u", "v"]}
    assert row_of({"answers": ["no"], "passages": lists, **Q, "query_id": 19699, "query_type": "entity"}) == expected
    objects = [{"is_selected": 1, "passage_text": "a"}, {"is_selected": 0, "passage_text": "x"}]
    assert row_of({"passages": objects, **Q, "query_id": 19699}) == expected


def test_quora() -> None:
    record = {
        "id": "0", "qid1": "01", "qid2": "02", "question1": "who sings", "question2": "a", "is_duplicate": 1.0,
    }  # fmt: skip
    assert row_of(record) == group(["a"], [1], query_id="01", doc_ids=["02"])


def test_the_few_pairs_that_quora_published_without_a_question_are_left_out_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = {"id": "0", "qid1": "01", "qid2": "02", "question1": "who sings", "question2": "", "is_duplicate": 0.0}
    mistakes = Mistakes("file")
    layout = recognise(list(record), [record])
    assert layout.row(record, lambda: "quora.tsv, line 7", mistakes) is None and not mistakes.count
    assert "quora.tsv, line 7: question2 is empty; the pair is left out" in caplog.text


def test_a_stored_example_reads_back_exactly() -> None:
    table = pa.table([["01"], ["q"], [["a", "b"]], [[0.1, 2]], [["7", "07"]], [[None, -3.25]]], schema=EXAMPLES)
    record = table.to_pylist()[0]
    row = recognise(table.column_names, [record]).row(record, lambda: "row 1", Mistakes("file"))
    assert row is not None and pa.table([[value] for value in row], schema=EXAMPLES) == table
    without = {**record, "doc_ids": None, "scores": None}
    assert row_of(without) == without


def test_columns_and_layout_can_be_said() -> None:
    record = {"id": "d", "title": "no", "asked": "who sings", "told": "a", "query": "another", "year": 1990}
    with pytest.raises(DataError, match=r"column 'year' holds numbers; if it is the label say"):
        recognise(list(record), [record])
    assert row_of(record, columns={"query": "asked", "positive": "told"}) == group(["a"], [1])
    assert row_of(record, columns={"query": "asked", "document": "told", "label": "year"}) == group(["a"], [1990])
    renamed = {"frage": "who sings", "gut": ["a"], "schlecht": ["x"]}
    columns = {"query": "frage", "pos": "gut", "neg": "schlecht"}
    assert row_of(renamed, layout="flagembedding", columns=columns) == group(["a", "x"], [1, 0])


def test_unknown_names_come_at_once_with_the_nearest() -> None:
    with pytest.raises(DataError) as error:
        recognise(["question", "answer"], [], layout="tevatorn", columns={"qury": "question", "positive": "anser"})
    for part in (
        "3 mistakes",
        "unknown layout 'tevatorn'; did you mean 'tevatron'",
        "unknown name 'qury'; did you mean 'query'",
        "no column 'anser' for 'positive'; did you mean 'answer'",
    ):
        assert part in str(error.value)


def test_a_layout_that_is_asked_for_and_not_there_says_what_it_needs() -> None:
    with pytest.raises(DataError, match=r"not those of tevatron: query_id, query, positive_passages.*option columns"):
        recognise(["query", "pos"], [{**Q, "pos": ["a"]}], layout="tevatron")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"_id": "1", "title": "t", "text": "t"}, "these are documents or queries"),
        ({"query_id": "1", "text": "t"}, "these are documents or queries"),
        ({"query-id": "1", "corpus-id": "2", "score": 1}, "no two columns of texts"),
        ({"query_id": "1", "query_text": "t", "positive_document_ids": ["2"]}, "open the folder that holds both"),
        ({**Q, "positive": "a", "source": "web"}, "column 'source' may be a negative or none"),
        ({"title": "t", "body": "b", "url": "u"}, "column 'url' may be a negative or none"),
        ({**Q, "document": "a", "similarity": 0.5}, "column 'similarity' holds numbers"),
        ({**Q, "a": "a", "b": "b", "c": "c", "label": 1.0}, "holds one number for 3 documents"),
        ({**Q, "docs": ["a"]}, "one list of labels as long"),
    ],
)  # fmt: skip
def test_what_is_no_example_is_said_with_the_known_layouts(record: Record, said: str) -> None:
    with pytest.raises(DataError) as error:
        recognise(list(record), [record])
    assert said in str(error.value) and str(list(record)) in str(error.value)


FLAG = {**Q, "pos": ["a"], "neg": ["x"], "pos_scores": [1.0], "neg_scores": [0.0]}
TRIPLE = {**Q, "positive": "a", "negative": "x"}
LISTED = {**Q, "documents": ["a", "x"], "labels": [1, 0]}


@pytest.mark.parametrize(
    ("good", "changes", "said"),
    [
        (FLAG, {"query": " "}, '"query" is \' \'; it must be a text that is not empty'),
        (FLAG, {"pos": None}, '"pos" is None; it must be a text that is not empty, or'),
        (FLAG, {"pos": ["a", ""], "pos_scores": [1, 0]}, "\"pos\"[1] is ''; it must be a text"),
        (FLAG, {"neg": [3]}, '"neg"[0] is 3; it must be a text'),
        (FLAG, {"pos_scores": [1, 2]}, '"pos_scores" holds 2 numbers for 1 documents'),
        (FLAG, {"neg_scores": [float("nan")]}, '"neg_scores"[0] is nan; it must be a finite number'),
        (FLAG, {"pos": [], "neg": [], "pos_scores": [], "neg_scores": []}, "a query without documents"),
        (TRIPLE, {"negative": None}, '"negative" is None; it must be a text that is not empty, or'),
        (TRIPLE, {"positive": "\ud800"}, "\"positive\" holds '\\ud800', half of a character"),
        (LISTED, {"labels": [1]}, '"labels" holds 1 numbers for 2 documents'),
        (LISTED, {"labels": [1, None]}, '"labels"[1] is None; it must be a finite number'),
        (LISTED, {"labels": [1, 1e39]}, '"labels"[1] is 1e+39; it must be a finite number'),
        (LISTED, {"labels": [1, "0"]}, "\"labels\"[1] is '0'; it must be a finite number"),
        (LISTED, {"documents": "a"}, '"labels" holds 2 numbers for 1 documents'),
        ({**LISTED, "doc_ids": ["1", "2"]}, {"doc_ids": ["1"]}, '"doc_ids" holds 1 ids for 2 documents'),
        ({**LISTED, "query_id": "1"}, {"query_id": True}, '"query_id" is True; it must be an id'),
        ({**Q, "document": "a", "label": 1}, {"label": "yes"}, "\"label\" is 'yes'; it must be a finite number"),
        ({**TRIPLE, "label": 1.5}, {"label": None}, '"label" is None; it must be a number'),
        ({**Q, **PASSAGES}, {"positive_passages": None}, '"positive_passages" is None; it must be a list of passages'),
        ({**Q, **PASSAGES}, {"positive_passages": [{"docid": "1", "text": None}]}, "[0].text is None; it must be"),
        ({**Q, **PASSAGES}, {"negative_passages": [{"text": "b"}]}, "1 of its 2 passages have no docid"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_named_with_its_value_and_the_remedy(good: Record, changes: Record, said: str) -> None:
    found = mistakes_of(good, {**good, **changes})
    assert len(found) == 1 and found[0].startswith("line 2: ") and said in found[0]


def test_a_field_that_is_missing_is_named_by_the_name_that_the_file_has() -> None:
    columns = {"query": "q", "positive": "a"}
    found, mistakes = recognise(["q", "a"], [{"q": "x", "a": "y"}], columns=columns), Mistakes("file")
    assert found.row({"q": "x", "b": "y"}, lambda: "line 2", mistakes) is None
    assert mistakes.found == ["line 2: \"a\" is missing among ['q', 'b']; it must be a text that is not empty"]


def test_a_negative_that_only_later_records_have_is_not_lost() -> None:
    first = {**Q, "positive": "a", "negative_1": "x"}
    found = recognise(list(first), [first])
    row = found.row({**first, "negative_2": "y"}, lambda: "", Mistakes("file"))
    assert row is not None and row[2] == ["a", "x", "y"]


def test_a_label_that_only_later_records_have_is_a_mistake() -> None:
    first = {**Q, "positive": "a"}
    found = mistakes_of(first, {**first, "label": 0})
    assert len(found) == 1 and '"label" is 0; it must be missing or null, as in the first records' in found[0]


def test_of_two_labels_the_caller_says_which_one_counts() -> None:
    record = {**TRIPLE, "label": 1.5, "score": 2.5}
    with pytest.raises(DataError, match=r"columns \['label', 'score'\] are all called labels"):
        recognise(list(record), [record])
    assert row_of(record, columns={"label": "score"})["scores"] == [2.5, 0]
    assert row_of(record, columns={"label": "label"})["scores"] == [1.5, 0]


def test_where_a_mistake_stands_is_only_looked_for_when_it_is_shown() -> None:
    asked: list[int] = []
    found, mistakes = recognise(list(TRIPLE), [TRIPLE]), Mistakes("file")
    for number in range(25):
        found.row({**TRIPLE, "query": ""}, lambda number=number: asked.append(number) or "", mistakes)
    assert mistakes.count == 25 and asked == list(range(10))


def test_a_text_before_the_query_that_has_no_known_name_is_asked_about() -> None:
    record = {"answers": "a canary", "passages": "Canaries sing.", "query": "who sings"}
    with pytest.raises(DataError, match="column 'answers' stands before 'query'"):
        recognise(list(record), [record])
    found = recognise(list(record), [record], columns={"query": "query", "positive": "passages"})
    assert set(found.reads) >= {"query", "passages"}
