import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from ranker.data import labels
from ranker.data.errors import DataError
from ranker.data.formats.example_files import (
    read_examples,
)
from ranker.data.formats.example_writers import write_examples
from ranker.data.source import FORMATS
from ranker.data.splits import Splits
from ranker.schemas import CORPUS, EXAMPLES, QUERIES

Records = list[dict[str, Any]]


ROWS = [
    {"query_id": "007", "query": "who\nsings", "documents": [" a canary ", "ä dog"], "labels": [1.0, 0.0],
     "doc_ids": ["01", "1"], "scores": [0.1, -3.5]},
    {"query_id": "7", "query": "who barks", "documents": ["ä dog"], "labels": [1.0], "doc_ids": None, "scores": None},
]  # fmt: skip
TABLE = pa.Table.from_pylist(ROWS, schema=EXAMPLES)
GRADED = pa.table([["3"], ["q"], [["a", "b"]], [[2.0, 0.1]], [None], [None]], schema=EXAMPLES)
NOTHING_GOOD = pa.table([["4"], ["q"], [["a"]], [[0.0]], [None], [None]], schema=EXAMPLES)


def test_flagembedding_reads_back_with_query_ids_and_scores(tmp_path: Path) -> None:
    write_examples(tmp_path / "out", "flagembedding", {"train": iter([TABLE]), "dev": []})
    first, second = (json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines())
    assert first == {
        "query_id": "007", "query": "who\nsings", "pos": [" a canary "], "neg": ["ä dog"],
        "pos_scores": [0.1], "neg_scores": [-3.5],
    }  # fmt: skip
    assert "pos_scores" not in second and second["neg"] == []
    again = read_examples(tmp_path / "out")
    assert again.to_pylist() == [{**row, "doc_ids": None} for row in TABLE.to_pylist()]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["dev.jsonl", "train.jsonl"]


def test_tevatron_reads_back_with_ids(tmp_path: Path) -> None:
    table = TABLE.set_column(5, "scores", pa.nulls(2, EXAMPLES.field("scores").type))
    write_examples(tmp_path / "out", "tevatron", {"train": [table.slice(0, 1), table.slice(1)]})
    rows = read_examples(tmp_path / "out").to_pylist()
    hashed = rows[1].pop("doc_ids")
    assert rows == [table.to_pylist()[0], {k: v for k, v in table.to_pylist()[1].items() if k != "doc_ids"}]
    assert len(hashed) == 1 and len(hashed[0]) == 32


def test_sentence_transformers_says_every_label_and_datasets_reads_its_columns(tmp_path: Path) -> None:
    write_examples(tmp_path / "out", "sentence-transformers", {"train": [TABLE, GRADED, NOTHING_GOOD]})
    again = read_examples(tmp_path / "out")
    whole = pa.concat_tables([TABLE, GRADED, NOTHING_GOOD])
    for name in ("query", "documents", "labels", "scores"):
        assert again[name].to_pylist() == whole[name].to_pylist()
    files = str(tmp_path / "out" / "train.jsonl")
    oracle = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert oracle.column_names == ["query", "documents", "labels", "scores"]
    assert oracle["labels"][:] == [[1.0, 0.0], [1.0], [2.0, 0.1], [0.0]]


@pytest.mark.parametrize("name", ["flagembedding", "tevatron"])
def test_what_a_layout_cannot_say_is_counted_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        write_examples(tmp_path, name, {"train": [GRADED, GRADED], "dev": [NOTHING_GOOD]})
    message = str(error.value)
    assert "3 mistakes" in message and "train, query '3': has the labels [2.0, 0.1]" in message
    assert "dev, query '4': has no positive" in message and "lossy" in message
    assert not list(tmp_path.iterdir())
    write_examples(tmp_path, name, {"train": [GRADED, GRADED], "dev": [NOTHING_GOOD]}, lossy=True)
    assert read_examples(tmp_path)["labels"].to_pylist() == [[1.0, 1.0], [1.0, 1.0]]


def test_tevatron_has_no_place_for_scores(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 mistake\n.*'007': has scores of a teacher"):
        write_examples(tmp_path, "tevatron", {"train": [TABLE]})


@pytest.mark.parametrize("name", ["flagembedding", "tevatron", "sentence-transformers"])
def test_a_format_writes_the_examples_of_a_data_set(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = pa.table([["1"], [""], ["a canary"]], schema=CORPUS)
    data = Splits("pets", corpus, pa.table([["q"], ["who sings"]], schema=QUERIES))
    example = pa.table([["q"], ["who sings"], [["a canary"]], [[1.0]], [["1"]], [None]], schema=EXAMPLES)
    given: list[Splits] = []

    def judged(splits: Splits) -> dict[str, list[pa.Table]]:
        given.append(splits)
        return {"test": [example]}

    monkeypatch.setattr(labels, "judged_examples", judged)
    FORMATS[name].write(tmp_path / "out", data, False)
    assert given == [data]
    assert read_examples(tmp_path / "out", split="test")["documents"].to_pylist() == [["a canary"]]


def test_a_writer_that_breaks_leaves_nothing_and_overwrites_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield TABLE
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_examples(tmp_path, "flagembedding", {"dev": [TABLE], "train": broken()})
    assert not list(tmp_path.iterdir())
    infinite = pa.table([["3"], ["q"], [["a"]], [[1.0]], [None], [[float("inf")]]], schema=EXAMPLES)
    with pytest.raises(DataError, match="the number inf"):
        write_examples(tmp_path, "flagembedding", {"train": [infinite]})
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(DataError, match=r"train.jsonl: there already"):
        write_examples(tmp_path, "flagembedding", {"dev": [TABLE]})
    with pytest.raises(DataError, match="did you mean 'tevatron'"):
        write_examples(tmp_path, "tevatorn", {})
    with pytest.raises(DataError, match="split 'a/b' cannot be"):
        write_examples(tmp_path / "new", "tevatron", {"a/b": []})


@pytest.mark.parametrize("name", ["flagembedding", "tevatron", "sentence-transformers"])
def test_a_document_without_words_is_refused_or_left_out(name: str, tmp_path: Path) -> None:
    table = pa.table([["1"], ["q"], [["a", " ", ""]], [[1.0, 0.0, 0.0]], [["7", "8", "9"]], [None]], schema=EXAMPLES)
    with pytest.raises(DataError, match="query '1': has 2 documents without words"):
        write_examples(tmp_path, name, {"train": [table]})
    write_examples(tmp_path, name, {"train": [table]}, lossy=True)
    assert read_examples(tmp_path)["documents"].to_pylist() == [["a"]]
