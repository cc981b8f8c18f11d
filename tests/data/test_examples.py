from pathlib import Path

import pyarrow as pa
import pytest

from ranker.data.errors import DataError
from ranker.data.examples import (
    as_groups,
    groups_to_lists,
    groups_to_pairs,
    groups_to_triples,
    pairs_to_groups,
    triples_to_groups,
)
from ranker.schemas import GROUPS, PAIRS, TRIPLES

GROUP = {"query_id": "0", "query": "who barks", "documents": ["dog", "puppy", "cat"], "labels": [2.0, 1.0, 0.0]}
GROUPS_TABLE = pa.Table.from_pylist([GROUP, {**GROUP, "query_id": "1", "query": "who purrs"}], schema=GROUPS)


def test_groups_to_pairs_keeps_order_and_labels() -> None:
    pairs = groups_to_pairs(GROUPS_TABLE)
    assert pairs.schema == PAIRS
    assert pairs.to_pylist()[:3] == [
        {"query": "who barks", "document": "dog", "label": 2.0},
        {"query": "who barks", "document": "puppy", "label": 1.0},
        {"query": "who barks", "document": "cat", "label": 0.0},
    ]
    assert groups_to_pairs(GROUPS_TABLE.slice(1)).to_pylist()[0]["query"] == "who purrs"


def test_groups_to_triples_pairs_every_better_with_every_worse() -> None:
    rows = [tuple(row.values()) for row in groups_to_triples(GROUPS_TABLE.slice(0, 1)).to_pylist()]
    assert rows == [("who barks", "dog", "puppy"), ("who barks", "dog", "cat"), ("who barks", "puppy", "cat")]


def test_pairs_and_groups_are_inverse_of_each_other() -> None:
    assert pairs_to_groups(groups_to_pairs(GROUPS_TABLE)) == GROUPS_TABLE


def test_triples_of_one_query_become_one_group_and_a_positive_is_never_a_negative() -> None:
    triples = pa.Table.from_pylist(
        [
            {"query": "q", "positive": "a", "negative": "x"},
            {"query": "q", "positive": "b", "negative": "a"},
            {"query": "r", "positive": "c", "negative": "x"},
            {"query": "q", "positive": "a", "negative": "y"},
        ],
        schema=TRIPLES,
    )
    rows = triples_to_groups(triples).to_pylist()
    assert rows[0] == {"query_id": "0", "query": "q", "documents": ["a", "b", "x", "y"], "labels": [1, 1, 0, 0]}
    assert rows[1]["documents"] == ["c", "x"]


@pytest.mark.parametrize(
    "samples",
    [
        [("q", "a", "x"), ("q", "a", "y")],
        [{"query": "q", "positive": "a", "negative": "x"}, {"query": "q", "positive": "a", "negative": "y"}],
        [("q", "a", 1), ("q", "x", 0), ("q", "y", 0.0)],
        [{"query": "q", "document": "a", "label": 1}, {"query": "q", "document": "x", "label": 0},
         {"query": "q", "document": "y", "label": 0}],
        [{"query": "q", "documents": ["a", "x", "y"], "labels": [1, 0, 0]}],
        [{"query_id": "0", "query": "q", "positives": ["a"], "negatives": ["x", "y"], "scores": [0.5, 0.4]}],
        pa.table({"query": ["q", "q"], "positive": ["a", "a"], "negative": ["x", "y"]}),
        pa.table({"query": ["q"], "documents": [["a", "x", "y"]], "labels": [[1, 0, 0]]}),
    ],
)  # fmt: skip
def test_every_form_of_the_same_examples_gives_the_same_group(samples: object) -> None:
    expected = {"query_id": "0", "query": "q", "documents": ["a", "x", "y"], "labels": [1.0, 0.0, 0.0]}
    groups = as_groups(samples)
    assert groups.schema == GROUPS and groups.to_pylist() == [expected]


def test_a_file_of_examples_is_its_train_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(f'{{"query": "{split}", "pos": ["a"], "neg": ["b", "c"]}}\n')
    found = as_groups(tmp_path).to_pylist()
    assert [(row["query"], row["documents"], row["labels"]) for row in found] == [("train", list("abc"), [1, 0, 0])]
    assert as_groups(str(tmp_path / "test.jsonl"))["query"].to_pylist() == ["test"]


def test_lists_keep_every_positive_and_a_seeded_sample_of_the_others() -> None:
    whole = groups_to_lists(GROUPS_TABLE)
    assert whole.to_pylist()[0] == {"query": "who barks", "documents": ["dog", "puppy", "cat"], "labels": [2, 1, 0]}
    assert groups_to_lists(GROUPS_TABLE.slice(1), 2)["documents"].to_pylist() == [["dog", "puppy"]]
    many = pa.Table.from_pylist(
        [{"query_id": "0", "query": "q", "documents": list("abcdefgh"), "labels": [0, 1, 0, 3, 0, 0, 0, 2]}],
        schema=GROUPS,
    )
    lists = [groups_to_lists(many, 5, seed).to_pylist()[0] for seed in range(30)]
    assert all(row["documents"] == sorted(row["documents"]) and len(row["documents"]) == 5 for row in lists)
    assert all({"b", "d", "h"} <= set(row["documents"]) for row in lists)
    assert {name for row in lists for name in row["documents"]} == set("abcdefgh")
    assert groups_to_lists(many, 2).to_pylist()[0] == {"query": "q", "documents": ["d", "h"], "labels": [3, 2]}
    with pytest.raises(DataError, match="max_documents 1 must be at least 2"):
        groups_to_lists(many, 1)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([], "no training examples"),
        ("text", "are a str"),
        ([("q", "d")], "example 0 is"),
        ([{"question": "q"}], r"keys \['question'\]"),
        (
            [("q", "a", "x"), ("q", "", "y"), ("q", "a", None)],
            r"2 mistakes\n  example 1: positive is ''.*\n  example 2",
        ),
        ([("q", "a", "x"), ("q",)], "example 1"),
        ([{"query": "q", "documents": ["a"], "labels": [1, 0]}], "lists of the same length"),
        (pa.table({"a": [1]}), r"columns \['a'\]"),
        (pa.table({"query": ["q"], "documents": [["a"]], "labels": [[1.0, 0.0]]}), "group 0"),
    ],
)
def test_what_is_no_example_is_named(samples: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        as_groups(samples)
