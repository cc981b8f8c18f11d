from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ranker.data.errors import DataError, Mistakes
from ranker.data.files import find_files
from ranker.data.formats.msmarco import open_msmarco
from ranker.data.formats.msmarco_files import recognise_msmarco
from ranker.data.formats.msmarco_write import write_msmarco
from ranker.data.formats.trec_write import write_trec
from ranker.data.source import FORMATS, Source
from ranker.data.splits import Splits
from ranker.schemas import CORPUS, ID_TRIPLES, QRELS, QUERIES, RUN


def read(folder: Path) -> dict[str, Any]:
    source = open_msmarco(find_files(folder))
    assert isinstance(source, Source)
    mistakes = Mistakes(source.name)
    pieces = [table for piece in source.corpus for table in piece.tables(mistakes)]
    run = source.run(mistakes)
    found = {
        "corpus": pa.concat_tables([CORPUS.empty_table(), *pieces]).to_pylist(),
        "queries": {row["query_id"]: row["text"] for row in source.queries(mistakes).to_pylist()},
        "qrels": {split: table.to_pylist() for split, table in source.qrels(mistakes).items()},
        "run": None if run is None else run.to_pylist(),
        "triples": {split: table.to_pylist() for split, table in source.triples(mistakes).items()},
    }
    mistakes.raise_if_any()
    return found


def as_tables(data: Splits) -> dict[str, Any]:
    return {
        "corpus": data.corpus.table().to_pylist(),
        "queries": {row["query_id"]: row["text"] for row in data.queries.to_pylist()},
        "qrels": {split: table.to_pylist() for split, table in data.qrels.items()},
        "run": None if data.run is None else data.run.to_pylist(),
        "triples": {split: table.to_pylist() for split, table in data.triples.items()},
    }


ODD = Splits(
    "odd",
    pa.table(
        [
            ["007", "LA010189-0001", "d'é", "4"],
            ["", "", "", ""],
            ["a\tb  c ", '"quoted" \\N', "", " \u2028\x0b "],
        ],
        schema=CORPUS,
    ),
    pa.table([["01", "q\"'", "3", "4"], ["tab\there ", "NULL", "unjudged", "twice"]], schema=QUERIES),
    {
        "train": pa.table([["01", "01", "4"], ["007", "d'é", "4"], [3, -1, 1]], schema=QRELS),
        "test": pa.table([["q\"'", "4"], ["4", "4"], [0, 2]], schema=QRELS),
        "mine": pa.table([["3"], ["4"], [1]], schema=QRELS),
    },
    pa.table([["01", "01"], ["007", "4"], [0.1, -2.5], [1, 2]], schema=RUN),
)


def triples(*ids: str) -> pa.Table:
    return pa.table([[each] for each in ids], schema=ID_TRIPLES)


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    data = replace(ODD, triples={"train": triples("01", "007", "d'é"), "mine": triples("3", "4", "007")})
    FORMATS["msmarco"].write(tmp_path / "odd", data, False)
    files = find_files(tmp_path / "odd")
    assert sorted(files.entries) == [
        "collection.tsv",
        *(f"qidpidtriples.{split}.tsv" for split in ("mine", "train")),
        *(f"qrels.{split}.tsv" for split in ("mine", "test", "train")),
        *(f"queries.{split}.tsv" for split in ("mine", "test", "train")),
        "run.trec",
    ]
    assert recognise_msmarco(files) and read(tmp_path / "odd") == as_tables(data)


def test_titles_make_documents_and_unjudged_queries_are_kept(tmp_path: Path) -> None:
    corpus = pa.table([["1", "2"], ["", 'A "title" '], ["a\tb", ""]], schema=CORPUS)
    data = replace(ODD, corpus=corpus, qrels={"other": ODD.qrels["test"]}, run=None)
    write_msmarco(tmp_path / "titled", data)
    assert (tmp_path / "titled" / "docs.tsv").read_text() == '1\t\t\ta\tb\n2\t\tA "title" \t\n'
    assert read(tmp_path / "titled") == as_tables(data)


def test_nothing_at_all_reads_back_too(tmp_path: Path) -> None:
    empty = Splits("e", CORPUS.empty_table(), QUERIES.empty_table(), {"test": QRELS.empty_table()}, RUN.empty_table())
    write_msmarco(tmp_path / "e", empty)
    assert read(tmp_path / "e") == as_tables(empty)


def test_what_cannot_be_said_is_counted_and_named_and_nothing_is_written(tmp_path: Path) -> None:
    data = Splits(
        "bad",
        pa.table([["docid", "2 b"], ["a\ttitle", ""], ["two\nlines", "cr\r"]], schema=CORPUS),
        pa.table([["QID", "3"], ["fi\nne", " "]], schema=QUERIES),
        {"dev": QRELS.empty_table(), "dev.small": QRELS.empty_table(), "top10": QRELS.empty_table()},
        triples={"mytrain": triples("3", "2", "neg ative")},
    )
    with pytest.raises(DataError, match="and 2 more") as error:
        write_msmarco(tmp_path / "bad", data)
    message = str(error.value)
    assert "12 mistakes" in message
    for part in (
        "doc_id '2 b': is empty, holds white space or",
        "doc_id 'neg ative'",
        "doc_id 'docid': at the start of a file would be no row of it; rename it",
        "query_id 'QID': at the start",
        "document 'docid': its title holds a tab or a line break: 'a\\ttitle'; write with --lossy to put a space there",
        "document 'docid': its text holds a line break",
        "document '2 b': its text holds a line break: 'cr\\r'",
        "query 'QID': its text holds a line break",
        "query '3': its text is empty",
    ):
        assert part in message, part
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError) as error:
        write_msmarco(tmp_path / "bad", data, lossy=True)
    assert "7 mistakes" in str(error.value)
    for part in ("qrels dev, dev.small: would all read back as dev", "qrels 'top10': is what other files"):
        assert part in str(error.value), part
    assert list(tmp_path.iterdir()) == []


def test_lossy_puts_a_space_and_another_name(tmp_path: Path) -> None:
    data = Splits(
        "lossy",
        pa.table([["1"], ["a\ttitle"], ["two\r\nlines"]], schema=CORPUS),
        pa.table([["3"], ["fi\nne"]], schema=QUERIES),
        {"dev.small": pa.table([["3"], ["1"], [1]], schema=QRELS)},
    )
    with pytest.raises(DataError, match=r"qrels dev\.small: would read back as dev; rename the split, or"):
        write_msmarco(tmp_path / "lossy", data)
    write_msmarco(tmp_path / "lossy", data, lossy=True)
    found = read(tmp_path / "lossy")
    assert found["corpus"] == [{"doc_id": "1", "title": "a title", "text": "two  lines"}]
    assert found["queries"] == {"3": "fi ne"} and list(found["qrels"]) == ["dev"]


def test_a_written_trec_collection_is_not_taken_for_it(tmp_path: Path) -> None:
    write_trec(tmp_path / "trec", replace(ODD, qrels={"test": ODD.qrels["test"]}), lossy=True)
    assert not recognise_msmarco(find_files(tmp_path / "trec"))
