import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ranker.data.catalog import load_splits
from ranker.data.convert import convert
from ranker.data.errors import DataError
from ranker.data.formats.parquet import write_parquet
from ranker.data.paths import known_formats, open_path
from ranker.data.source import ExampleSource
from ranker.data.splits import Splits
from ranker.schemas import CORPUS, ID_TRIPLES, QRELS, QUERIES, document_texts

# The files of a hub data set are Parquet, which has a format of its own.
FORMATS = [name for name in known_formats() if name != "hub"]
COLLECTIONS = [name for name in FORMATS if name in ("beir", "parquet", "trec", "msmarco")]

DOCUMENTS = [
    ("007", "Canarios", "cantan por la mañana"),
    ("7", "", "another\tone, with a tab"),
    ("LA010189-0001", "Los Angeles Times", "1 < 2 && \"3\" > '2' é 你好"),
    ("d;4", "", '{"text": "looks like JSON"}'),
    ("1e5", "", "not a number"),
    ("-1", "", "never judged"),
]
ASKED = [("01", "quién canta"), ("1", "what's a tab?"), ("q.3", "<b>3 & 4</b>"), ("4", "5 to 4")]
BINARY = {
    "train": [("01", "007", 1), ("01", "7", 0), ("1", "7", 1)],
    "dev": [("q.3", "LA010189-0001", 1), ("q.3", "1e5", 0), ("q.3", "d;4", 0)],
    "test": [("4", "d;4", 1)],
}
GRADED = {
    "train": [("01", "007", 3), ("01", "7", -2), ("1", "7", 1)],
    "dev": [("q.3", "LA010189-0001", 2), ("q.3", "1e5", 1), ("q.3", "d;4", 0)],
    "test": [("4", "d;4", 1)],
}


def made(qrels: Mapping[str, list[tuple[str, str, int]]]) -> Splits:
    def table(rows: list[Any], schema: pa.Schema) -> pa.Table:
        return pa.table([list(column) for column in zip(*rows, strict=True)], schema=schema)

    judged = {split: table(rows, QRELS) for split, rows in qrels.items()}
    return Splits("made", table(DOCUMENTS, CORPUS), table(ASKED, QUERIES), judged)


def stored(folder: Path, qrels: Mapping[str, list[tuple[str, str, int]]]) -> Path:
    write_parquet(folder, made(qrels))
    return folder


def rows(data: Splits) -> dict[str, Any]:
    """All of a collection; queries and judgements are sets, documents have an order."""
    found: dict[str, Any] = {split: sorted(map(tuple, _values(table))) for split, table in data.qrels.items()}
    return {"corpus": _values(data.corpus.table()), "queries": sorted(_values(data.queries)), **found}


def _values(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def pairs(data: Splits) -> dict[str, list[tuple[str, str, int]]]:
    """The judged pairs as texts."""
    corpus, asked = data.corpus.table(), dict(_values(data.queries))
    read = dict(zip(corpus["doc_id"].to_pylist(), document_texts(corpus), strict=True))
    return {
        split: sorted((asked[query_id], read[doc_id], relevance) for query_id, doc_id, relevance in _values(table))
        for split, table in data.qrels.items()
    }


@pytest.mark.parametrize("to", COLLECTIONS)
@pytest.mark.parametrize("source", COLLECTIONS)
def test_every_collection_format_says_the_same_as_every_other(source: str, to: str, tmp_path: Path) -> None:
    first, second = tmp_path / source, tmp_path / "again" / to
    convert(str(stored(tmp_path / "made", GRADED)), first, source)
    convert(str(first), second, to)
    again = load_splits(str(second))
    assert rows(again) == rows(made(GRADED))
    assert load_splits(str(second), format=to).corpus.table() == again.corpus.table()


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_keeps_judged_pairs_and_is_recognised(to: str, tmp_path: Path) -> None:
    told = convert(str(stored(tmp_path / "made", BINARY)), tmp_path / "written", to)
    assert told == {
        "folder": str(tmp_path / "written"), "format": to, "name": "made", "queries": 4,
        "documents": 6 if to in COLLECTIONS else 5,
        "judgements": {"train": 3, "dev": 3, "test": 1},
    }  # fmt: skip
    assert open_path(tmp_path / "written").format == to
    again = load_splits(str(tmp_path / "written"))
    assert pairs(again) == pairs(made(BINARY))
    # And back into a collection.
    convert(str(tmp_path / "written"), tmp_path / "back", "beir")
    assert pairs(load_splits(str(tmp_path / "back"))) == pairs(made(BINARY))


@pytest.mark.parametrize("to", FORMATS)
def test_a_format_keeps_grades_or_refuses_them(to: str, tmp_path: Path) -> None:
    source = str(stored(tmp_path / "made", GRADED))
    if to not in ("flagembedding", "tevatron"):
        convert(source, tmp_path / "written", to)
        assert pairs(load_splits(str(tmp_path / "written"))) == pairs(made(GRADED))
        return
    with pytest.raises(DataError, match="labels"):
        convert(source, tmp_path / "written", to)
    convert(source, tmp_path / "lossy", to, lossy=True)
    again = pairs(load_splits(str(tmp_path / "lossy")))
    expected = {
        split: sorted((query, text, int(grade > 0)) for query, text, grade in found)
        for split, found in pairs(made(GRADED)).items()
    }
    assert again == expected


def test_examples_are_no_collection_but_can_become_one(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps({"query": "who barks", "pos": ["dogs"], "neg": ["cats", "fish"]}) + "\n")
    assert isinstance(open_path(file), ExampleSource)
    told = convert(str(file), tmp_path / "beir", "beir")
    assert (told["documents"], told["queries"], told["judgements"]) == (3, 1, {"train": 3})
    judged = pairs(load_splits(str(tmp_path / "beir")))["train"]
    assert judged == [("who barks", "cats", 0), ("who barks", "dogs", 1), ("who barks", "fish", 0)]


def test_a_sample_is_written_and_missing_ids_are_refused_unless_allowed(tmp_path: Path) -> None:
    data = made({"test": [("01", "007", 1), ("1", "gone", 1)]})
    write_parquet(tmp_path / "made", data)
    with pytest.raises(DataError, match="1 judged doc_ids are not in"):
        convert(str(tmp_path / "made"), tmp_path / "all", "beir")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["made"]
    told = convert(str(tmp_path / "made"), tmp_path / "few", "beir", allow_missing=True, max_documents=2, max_queries=1)
    assert (told["documents"], told["queries"], told["judgements"]) == (2, 1, {"test": 1})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["few", "made"]


def test_what_cannot_be_written_is_said_before_anything_is_read(tmp_path: Path, pets: Path) -> None:
    with pytest.raises(DataError, match="unknown format 'bier'; did you mean 'beir'"):
        convert(str(pets), tmp_path / "new", "bier")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="is there already; name a folder that is not"):
        convert("ir_datasets:never/asked", tmp_path / "full", "beir")
    with pytest.raises(DataError, match="max_document: unknown option; did you mean 'max_documents'"):
        convert(str(pets), tmp_path / "new", "beir", max_document=3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["full"]


def test_triples_that_were_left_out_are_not_counted(tmp_path: Path) -> None:
    data = replace(
        made({"train": [("01", "007", 1)]}), triples={"train": pa.table([["01"], ["007"], ["7"]], schema=ID_TRIPLES)}
    )
    write_parquet(tmp_path / "made", data)
    assert convert(str(tmp_path / "made"), tmp_path / "kept", "msmarco", lossy=True)["triples"] == {"train": 1}
    assert "triples" not in convert(str(tmp_path / "made"), tmp_path / "lost", "beir", lossy=True)
