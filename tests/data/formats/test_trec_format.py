import gzip
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from ir_datasets.formats.trec import TrecDocs

from ranker.data.errors import DataError, Mistakes
from ranker.data.files import find_files
from ranker.data.formats.trec_format import kind_of, open_trec, recognise_trec
from ranker.data.formats.trec_write import write_trec
from ranker.data.source import FORMATS, Source
from ranker.data.splits import Splits
from ranker.schemas import CORPUS, ID_TRIPLES, QRELS, QUERIES, RUN

DATA = Splits(
    "odd",
    pa.table(
        [
            ["007", "LA010189-0001", "d'é", "R&D<1>", "5", "6"],
            ["", "Two\nlines", "T & <T>", "", "t", ""],
            ["a\tb\n\nc", "</TEXT></DOC> & &amp; &#13;", "carriage\rreturn\r\nx", "", "\ufeff\x00|", "<DOC>"],
        ],
        schema=CORPUS,
    ),
    pa.table([["01", "q\"&'", "3"], ["tab\there, line\nthere", "<title> & \r &lt;", "unjudged"]], schema=QUERIES),
    {
        "train": pa.table([["01", "01"], ["007", "d'é"], [3, -1]], schema=QRELS),
        "test": pa.table([["q\"&'"], ["R&D<1>"], [0]], schema=QRELS),
    },
    pa.table([["01", "01"], ["007", "5"], [0.1, -2.5], [1, 2]], schema=RUN),
)


def tables(source: Source) -> dict[str, object]:
    mistakes = Mistakes(source.name)
    corpus = pa.concat_tables([CORPUS.empty_table(), *(t for piece in source.corpus for t in piece.tables(mistakes))])
    found = {
        "corpus": corpus.to_pylist(),
        "queries": source.queries(mistakes).to_pylist(),
        "qrels": {split: table.to_pylist() for split, table in source.qrels(mistakes).items()},
        "run": None if (run := source.run(mistakes)) is None else run.to_pylist(),
        "triples": {split: table.to_pylist() for split, table in source.triples(mistakes).items()},
    }
    mistakes.raise_if_any()
    return found


def as_tables(data: Splits) -> dict[str, object]:
    return {
        "corpus": data.corpus.table().to_pylist(),
        "queries": data.queries.to_pylist(),
        "qrels": {split: table.to_pylist() for split, table in data.qrels.items()},
        "run": None if data.run is None else data.run.to_pylist(),
        "triples": {split: table.to_pylist() for split, table in data.triples.items()},
    }


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    write_trec(tmp_path / "odd", DATA)
    files = find_files(tmp_path / "odd")
    assert sorted(files.entries) == ["documents.trec", "qrels.test.txt", "qrels.train.txt", "run.trec", "topics.xml"]
    assert recognise_trec(files)
    source = pickle.loads(pickle.dumps(FORMATS["trec"].open(files)))
    assert isinstance(source, Source) and source.name == "odd"
    assert tables(source) == as_tables(DATA)


def test_ir_datasets_reads_what_is_written(tmp_path: Path) -> None:
    corpus = pa.table([["1", "02"], ["Birds", ""], ["two\nlines", "x"]], schema=CORPUS)
    write_trec(tmp_path / "plain", replace(DATA, corpus=corpus, run=None))
    oracle = TrecDocs(None, parser="tut")._docs_iter(tmp_path / "plain" / "documents.trec")
    found = [(document.doc_id, document.title, document.text.strip()) for document in oracle]
    assert found == [("1", "Birds", "two\nlines"), ("02", "", "x")]


def test_nothing_at_all_reads_back_too(tmp_path: Path) -> None:
    empty = Splits("e", CORPUS.empty_table(), QUERIES.empty_table(), {"test": QRELS.empty_table()}, RUN.empty_table())
    write_trec(tmp_path / "e", empty)
    assert tables(open_trec(find_files(tmp_path / "e"))) == as_tables(empty)


def test_what_cannot_be_said_is_counted_and_named_and_nothing_is_written(tmp_path: Path) -> None:
    data = Splits(
        "bad",
        pa.table([["my doc", "2", ""], ["", " padded", ""], ["x", "y\n", "z"]], schema=CORPUS),
        pa.table([["1 2", "3", "4", "\x01"], ["fine", " ", "bell\x07", "x"]], schema=QUERIES),
        {"dev": QRELS.empty_table(), "validation": QRELS.empty_table(), "all": QRELS.empty_table()},
        pa.table([["3"], ["my run"], [1.0], [1]], schema=RUN),
        {"train": pa.table([["3"], ["2"], ["2"]], schema=ID_TRIPLES)},
    )
    with pytest.raises(DataError, match="and 2 more") as error:
        write_trec(tmp_path / "bad", data)
    message = str(error.value)
    assert "12 mistakes" in message
    for part in (
        "doc_id 'my doc': is empty, holds white space or",
        "doc_id ''",
        "query_id '1 2'",
        "doc_id 'my run'",
        "query '3': its text is empty: ' '",
        "query '4': its text begins or ends with white space or holds a control character: 'bell\\x07'; write",
        "query '\\x01': its id holds a control character",
        "splits dev, validation: would read back as dev",
        "splits all: would read back as test; the names of the files say train, dev, test only; write with --lossy to",
        "triples: {'train': 1}, which no file of TREC holds; write with --lossy to do without, or write the format msm",
    ):
        assert part in message, part
    assert list(tmp_path.iterdir()) == []


def test_lossy_leaves_away_what_cannot_be_said(tmp_path: Path) -> None:
    data = Splits(
        "lossy",
        pa.table([["2"], [" padded"], ["y\n"]], schema=CORPUS),
        pa.table([["4"], ["bell\x07 rings "]], schema=QUERIES),
        {"validation": pa.table([["4"], ["2"], [1]], schema=QRELS)},
        triples={"train": pa.table([["4"], ["2"], ["2"]], schema=ID_TRIPLES)},
    )
    with pytest.raises(DataError, match="5 mistakes"):
        write_trec(tmp_path / "lossy", data)
    write_trec(tmp_path / "lossy", data, lossy=True)
    found = tables(open_trec(find_files(tmp_path / "lossy")))
    assert found["corpus"] == [{"doc_id": "2", "title": "padded", "text": "y"}]
    assert found["queries"] == [{"query_id": "4", "text": "bell  rings"}]
    assert found["qrels"] == {"dev": [{"query_id": "4", "doc_id": "2", "relevance": 1}]}


def test_levels_are_not_in_the_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_trec(tmp_path / "odd", replace(DATA, relevance_levels={"test": 2}))
    assert "does not say that judgements count as relevant from {'test': 2} on" in caplog.text


@pytest.fixture
def disks(tmp_path: Path) -> Path:
    """A collection as a group keeps it: documents in folders, some packed, and the rest beside it."""
    folder = tmp_path / "disks"
    for name in ("ft/ft911/ft911_1", "latimes/la010189.gz"):
        (folder / name).parent.mkdir(parents=True)
        text = f"<DOC>\n<DOCNO> {Path(name).stem} </DOCNO>\n<TEXT>\nx\n</TEXT>\n</DOC>\n".encode()
        (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    (folder / "README").write_text("<DOC> and <DOCNO> are what it is made of\n")
    (folder / "ft" / "dtd").write_text("<!ELEMENT HEADLINE>\n")
    (folder / "topics.301-302").write_text("<top>\n<num> Number: 301\n<title> birds\n</top>\n")
    (folder / "301-302.judged").write_text("301 0 ft911_1 1\n301 0 la010189 0\n")
    (folder / "bm25.out").write_text("301 Q0 ft911_1 1 7.5 bm25\n")
    return folder


def test_files_are_told_apart_by_what_is_in_them(disks: Path) -> None:
    files = find_files(disks)
    assert recognise_trec(files)
    kinds = {name: kind_of(file) for name, file in files.entries.items()}
    assert kinds == {
        "301-302.judged": "qrels",
        "README": None,
        "bm25.out": "run",
        "ft/dtd": None,
        "ft/ft911/ft911_1": "documents",
        "latimes/la010189.gz": "documents",
        "topics.301-302": "topics",
    }
    found = tables(open_trec(files))
    assert [row["doc_id"] for row in found["corpus"]] == ["ft911_1", "la010189"]
    assert found["queries"] == [{"query_id": "301", "text": "birds"}]
    assert [row["relevance"] for row in found["qrels"]["test"]] == [1, 0]
    assert [row["score"] for row in found["run"]] == [7.5]


def test_a_zip_and_documents_alone_open_too(disks: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "disks.zip", "w") as archive:
        for file in disks.rglob("*"):
            archive.write(file, file.relative_to(tmp_path))
    source = open_trec(find_files(tmp_path / "disks.zip"))
    assert source.name == "disks" and tables(source) == tables(open_trec(find_files(disks)))
    alone = find_files(disks / "ft" / "ft911" / "ft911_1")
    assert recognise_trec(alone)
    found = tables(open_trec(alone))
    assert (found["queries"], found["qrels"], found["run"]) == ([], {}, None) and len(found["corpus"]) == 1


def test_files_that_say_the_same_twice_are_named(disks: Path) -> None:
    (disks / "qrels.trec8.txt").write_text("301 0 ft911_1 1\n")
    (disks / "second.out").write_text("301 Q0 ft911_1 1 3.5 other\n")
    with pytest.raises(DataError) as error:
        tables(open_trec(find_files(disks)))
    message = str(error.value)
    assert "2 mistakes" in message
    assert (
        "301-302.judged and qrels.trec8.txt are both judgements of the split 'test'; name them qrels.train" in message
    )
    assert "second.out, line 1: document 'ft911_1' stands twice in the list of query '301', first at" in message


def test_other_folders_are_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "<DOC><DOCNO>"}\n')
    (tmp_path / "notes").write_text("nothing\n")
    assert not recognise_trec(find_files(tmp_path))
    with pytest.raises(DataError, match="no documents, topics, judgements or run in corpus"):
        open_trec(find_files(tmp_path))
