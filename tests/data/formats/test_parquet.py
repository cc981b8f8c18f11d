from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.data.catalog import load_splits
from ranker.data.errors import DataError
from ranker.data.formats.parquet import write_parquet
from ranker.data.splits import Splits
from ranker.schemas import CORPUS, ID_TRIPLES, QRELS, QUERIES, RUN


def made() -> Splits:
    return Splits(
        "made",
        pa.table([["007", "7"], ["T", ""], ["a\tb\nc", ""]], schema=CORPUS),
        pa.table([["01", "1"], ["one", "uno"]], schema=QUERIES),
        {"train": pa.table([["01"], ["007"], [3]], schema=QRELS), "test": pa.table([["1"], ["7"], [-1]], schema=QRELS)},
        pa.table([["01"], ["7"], [0.1 + 0.2], [1]], schema=RUN),
        {"train": pa.table([["01"], ["007"], ["7"]], schema=ID_TRIPLES)},
    )


def test_what_is_written_reads_back_to_the_last_bit(tmp_path: Path) -> None:
    data = made()
    write_parquet(tmp_path / "out", data)
    again = load_splits(str(tmp_path / "out"))
    assert again.corpus.table() == data.corpus.table() and again.queries == data.queries
    assert again.qrels == data.qrels and again.run == data.run and again.triples == data.triples


def test_other_names_of_the_columns_and_numbers_as_ids_are_taken(tmp_path: Path) -> None:
    pq.write_table(pa.table({"_id": [1, 2], "text": ["a", None], "url": ["u", "v"]}), tmp_path / "corpus.parquet")
    pq.write_table(pa.table({"_id": ["q"], "text": ["?"]}), tmp_path / "queries.parquet")
    (tmp_path / "qrels").mkdir()
    table = pa.table({"query-id": ["q"], "corpus-id": ["2"], "score": pa.array([1], pa.int64())})
    pq.write_table(table, tmp_path / "qrels" / "test-00000-of-00001.parquet")
    found = load_splits(str(tmp_path)).collection("test")
    assert found.corpus.to_pylist() == [
        {"doc_id": "1", "title": "", "text": "a"}, {"doc_id": "2", "title": "", "text": ""},
    ]  # fmt: skip
    assert found.qrels.to_pylist() == [{"query_id": "q", "doc_id": "2", "relevance": 1}]


def test_bad_rows_and_unknown_columns_are_named(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"doc_id": ["a", None, " ", "a"], "text": ["1", "2", "3", "4"]}), tmp_path / "corpus.parquet"
    )
    pq.write_table(pa.table({"name": ["q"], "text": ["?"]}), tmp_path / "queries.parquet")
    with pytest.raises(DataError) as error:
        load_splits(str(tmp_path))
    for part in (
        "corpus.parquet, row 2: doc_id is None",
        "corpus.parquet, row 3: doc_id is ' '",
        "no column for ['query_id'] among ['name', 'text']",
        "corpus.parquet, row 4: id 'a' was already used at",
    ):
        assert part in str(error.value), part


def test_ids_and_queries_without_words_are_mistakes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"_id": ["7"], "text": [""]}), tmp_path / "corpus.parquet")
    pq.write_table(pa.table({"_id": ["1", "", "3"], "text": ["?", "a", " "]}), tmp_path / "queries.parquet")
    with pytest.raises(DataError) as error:
        load_splits(str(tmp_path))
    assert "2 mistakes" in str(error.value)
    assert "queries.parquet, row 2: query_id is ''; it must not be blank" in str(error.value)
    assert "queries.parquet, row 3: text is ' '; it must not be blank" in str(error.value)
