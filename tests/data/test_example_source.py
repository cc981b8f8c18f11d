import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.data import example_source as module
from ranker.data.errors import DataError, Mistakes
from ranker.data.example_source import examples_as_source, text_id
from ranker.data.source import ExampleSource, Source
from ranker.schemas import EXAMPLES


def source(folder: Path, **splits: list[tuple[Any, ...]]) -> Source:
    parts = {}
    for split, rows in splits.items():
        pq.write_table(
            pa.table([list(column) for column in zip(*rows, strict=True)], schema=EXAMPLES), folder / f"{split}.parquet"
        )
        parts[split] = [folder / f"{split}.parquet"]
    return examples_as_source(ExampleSource("made", "parquet"), parts)


ROWS = [
    ("q2", "two", ["b", "a"], [1, 0], ["B", None], [0.5, None]),
    ("q1", "one", ["c", "a"], [0, 2], None, None),
    ("q2", "two", ["a", "b", "c"], [1, 0, 0], [], [0.75, 0.25, 0.25]),
]


@pytest.mark.parametrize("waiting", [0, 10**6])
def test_judgements_are_the_highest_labels_in_the_order_of_the_examples(
    waiting: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_GROUPS", 1)
    monkeypatch.setattr(module, "WAITING_ROWS", waiting)
    made, mistakes = source(tmp_path, train=ROWS), Mistakes("made")
    a, b, c = map(text_id, "abc")
    found = made.qrels(mistakes)["train"]
    assert list(zip(*(column.to_pylist() for column in found.columns), strict=True)) == [
        ("q2", "B", 1), ("q2", a, 1), ("q1", c, 0), ("q1", a, 2), ("q2", b, 0), ("q2", c, 0),
    ]  # fmt: skip
    assert made.queries(mistakes).to_pylist() == [
        {"query_id": "q2", "text": "two"},
        {"query_id": "q1", "text": "one"},
    ]
    mistakes.raise_if_any()


def test_scores_become_candidates_and_those_of_the_last_example_count(tmp_path: Path) -> None:
    again = ("q2", "two", ["b"], [1], ["B"], [0.125])
    run = source(tmp_path, train=[*ROWS, again]).run(Mistakes("made"))
    assert run is not None
    assert [(row["doc_id"], row["score"], row["rank"]) for row in run.to_pylist()] == [
        (text_id("a"), 0.75, 1), (text_id("b"), 0.25, 2), (text_id("c"), 0.25, 3), ("B", 0.125, 4),
    ]  # fmt: skip
    assert source(tmp_path, train=ROWS[1:2]).run(Mistakes("made")) is None


def test_mistakes_name_the_split_the_query_the_document_and_the_remedy(tmp_path: Path) -> None:
    made = source(
        tmp_path,
        train=[("q1", "one", ["a"], [1], ["A"], None), ("q1", "one", ["b"], [0.5], ["A"], None)],
        dev=[("q1", "another", ["c"], [1], ["C"], None)],
    )
    mistakes = Mistakes("made")
    for piece in made.corpus:
        list(piece.tables(mistakes))
    made.qrels(mistakes)
    made.queries(mistakes)
    with pytest.raises(DataError) as error:
        mistakes.raise_if_any()
    assert str(error.value).splitlines() == [
        "made: 3 mistakes",
        "  split train: document 'A' of query 'q1' ('one') had another text before: 'b'; give each text an id of its "
        "own, or leave the ids out",
        "  split train: label 0.5 of document 'A' of query 'q1' is no whole number, as a judgement must be; round it, "
        "or train on these examples as they are (train.groups): they cannot be searched and measured",
        "  split dev: query 'q1' is 'another', and 'one' in split train; give each query an id of its own, or leave "
        "the ids out",
    ]


def test_every_fraction_is_counted(tmp_path: Path) -> None:
    made, mistakes = (
        source(tmp_path, train=[("q", "?", [str(n) for n in range(50)], [0.5] * 50, None, None)]),
        Mistakes(""),
    )
    assert made.qrels(mistakes)["train"].num_rows == 0
    assert mistakes.count == 50 and len(mistakes.found) == 10


def test_judgements_take_no_python_object_each(tmp_path: Path) -> None:
    rows = [
        (f"q{q}", f"question {q}", ["text"] * 50, [1.0] * 50, [f"document {q} {n}" for n in range(50)], None)
        for q in range(1000)
    ]
    made = source(tmp_path, train=rows)
    tracemalloc.start()
    found = made.qrels(Mistakes("made"))["train"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Numbers for 50,000 rows, a few columns of eight bytes; as Python objects the pairs alone took 300 bytes a row.
    assert found.num_rows == 50_000 and peak < 100 * found.num_rows
