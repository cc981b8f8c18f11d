import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ranker.data import files as files_module
from ranker.data import parts as parts_module
from ranker.data import spread as spread_module
from ranker.data.catalog import load_splits
from ranker.data.errors import DataError
from ranker.data.paths import open_path
from ranker.data.store import Reading, store_source
from ranker.schemas import StoredCorpus


def beir(folder: Path, documents: list[dict[str, Any]], qrels: str = "q\td0\t1\n") -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "which"}\n')
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"_id": f"d{n}", "title": "", "text": f"text {n}"} for n in range(count)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that a thousand documents pass all of them."""
    monkeypatch.setattr(files_module, "SPAN_BYTES", 5_000)
    monkeypatch.setattr(files_module, "BLOCK_BYTES", 700)
    monkeypatch.setattr(parts_module, "PART_ROWS", 40)
    monkeypatch.setattr(parts_module, "RANGE_ROWS", 64)


def test_many_pieces_and_parts_keep_the_order_of_the_file(tmp_path: Path, small: None) -> None:
    source = beir(tmp_path / "in", numbered(1000))
    data = store_source(open_path(source), tmp_path / "work")
    assert isinstance(data.corpus, StoredCorpus) and len(data.corpus.parts) > 20
    assert data.corpus.table()["doc_id"].to_pylist() == [f"d{n}" for n in range(1000)]
    assert data.corpus.num_rows == 1000
    assert data.corpus.lookup(["d999", "d5", "x"])["text"].to_pylist() == ["text 5", "text 999"]
    assert data.corpus.missing(["d1", "y", "x"]) == ["x", "y"]
    assert sorted(file.name for file in (tmp_path / "work").iterdir()) == ["corpus"]


def test_ids_that_occur_twice_are_named_with_both_lines_however_far_apart(tmp_path: Path, small: None) -> None:
    documents = numbered(1000)
    documents[900]["_id"] = documents[901]["_id"] = "d3"
    documents[950]["_id"] = "d949"
    source = beir(tmp_path / "in", documents)
    with pytest.raises(DataError) as error:
        store_source(open_path(source), tmp_path / "work")
    message = str(error.value)
    assert "in: 3 mistakes" in message
    for line, doc_id, first in ((901, "d3", 4), (902, "d3", 4), (951, "d949", 950)):
        assert f"corpus.jsonl, line {line}: id '{doc_id}' was already used at " in message
        assert f"corpus.jsonl, line {first}; ids must differ" in message


def test_equal_hashes_are_not_equal_ids(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr(parts_module, "hash_ids", lambda ids, key="": np.zeros(len(ids), dtype=np.uint64))
    data = store_source(open_path(beir(tmp_path / "in", numbered(100))), tmp_path / "work")
    assert data.corpus.num_rows == 100


def test_an_interrupted_call_goes_on_with_the_pieces_that_are_missing(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read = beir(tmp_path / "in", numbered(1000)), []
    whole = files_module.DataFile.blocks

    def blocks(self: Any, mistakes: Any, span: Any = files_module.WHOLE) -> Any:
        if "corpus" in self.name:
            read.append(span.start)
            if len(read) == 4:
                raise KeyboardInterrupt
        return whole(self, mistakes, span)

    monkeypatch.setattr(files_module.DataFile, "blocks", blocks)
    with pytest.raises(KeyboardInterrupt):
        store_source(open_path(source), tmp_path / "work")
    data = store_source(open_path(source), tmp_path / "work")
    assert data.corpus.table()["doc_id"].to_pylist() == [f"d{n}" for n in range(1000)]
    assert len(read) == len(set(read)) + 1, "only the piece that was interrupted is read twice"


def test_a_sample_is_the_same_for_any_cut_and_keeps_what_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = beir(tmp_path / "in", numbered(500), "q\td7\t1\nq\td8\t0\n")
    one = store_source(open_path(source), tmp_path / "one", Reading(max_documents=50, seed=3))
    monkeypatch.setattr(files_module, "SPAN_BYTES", 3_000)
    monkeypatch.setattr(parts_module, "PART_ROWS", 20)
    two = store_source(open_path(source), tmp_path / "two", Reading(max_documents=50, seed=3))
    ids = one.corpus.table()["doc_id"].to_pylist()
    assert len(ids) == 50 and {"d7", "d8"} <= set(ids) and ids == sorted(ids, key=lambda name: int(name[1:]))
    assert two.corpus.table()["doc_id"].to_pylist() == ids
    other = store_source(open_path(source), tmp_path / "three", Reading(max_documents=50, seed=4))
    assert other.corpus.table()["doc_id"].to_pylist() != ids


def test_missing_ids_are_mistakes_or_count_as_never_found(tmp_path: Path) -> None:
    source = beir(tmp_path / "in", numbered(3), "q\td0\t1\nq\tgone\t2\nnobody\td1\t1\n")
    with pytest.raises(DataError) as error:
        store_source(open_path(source), tmp_path / "work")
    assert "qrels test: 1 judged doc_ids are not in corpus.jsonl: 'gone'" in str(error.value)
    assert "1 judged query_ids are not in queries.jsonl: 'nobody'" in str(error.value)
    kept = store_source(open_path(source), tmp_path / "again", Reading(allow_missing=True)).qrels["test"]
    assert kept.to_pylist() == [
        {"query_id": "q", "doc_id": "d0", "relevance": 1}, {"query_id": "q", "doc_id": "gone", "relevance": 2},
    ]  # fmt: skip


def test_half_a_character_in_json_is_named_or_replaced(tmp_path: Path) -> None:
    source = beir(tmp_path / "in", [{"_id": "d0", "text": "a\ud83d b \U0001f600"}])
    with pytest.raises(DataError, match=r"line 1: \"text\" holds '\\ud83d', half of a character"):
        store_source(open_path(source), tmp_path / "work")
    data = store_source(open_path(source, on_invalid="replace"), tmp_path / "again")
    assert data.corpus.table()["text"].to_pylist() == ["a\ufffd b \U0001f600"]


def test_null_and_empty_texts_are_empty_documents(tmp_path: Path) -> None:
    documents = [{"_id": "d0", "text": None}, {"_id": "d1", "title": None, "text": ""}, {"_id": 2, "text": "x"}]
    table = store_source(open_path(beir(tmp_path / "in", documents)), tmp_path / "work").corpus.table()
    assert table.to_pylist() == [
        {"doc_id": "d0", "title": "", "text": ""}, {"doc_id": "d1", "title": "", "text": ""},
        {"doc_id": "2", "title": "", "text": "x"},
    ]  # fmt: skip


def test_the_fast_reader_and_the_careful_one_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [
        {"_id": f"00{n}", "title": "T\u00e9", "text": f'q"uote \\ tab\t nul\u0000 \u2028 {n}', "more": [1, {"b": None}]}
        for n in range(20)
    ]  # fmt: skip
    source = beir(tmp_path / "in", documents, "q\t000\t1\n")
    fast = store_source(open_path(source), tmp_path / "fast").corpus.table()
    monkeypatch.setattr("ranker.data.formats.beir.json_block", lambda *_: None)
    assert store_source(open_path(source), tmp_path / "careful").corpus.table() == fast
    assert fast["text"][3].as_py() == documents[3]["text"]


def test_ray_data_reads_the_same_as_this_process(
    tmp_path: Path, small: None, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = numbered(300)
    here = store_source(open_path(beir(tmp_path / "in", documents)), tmp_path / "here").corpus.table()
    monkeypatch.setattr(spread_module, "WORTH_JOINING_BYTES", 0)
    pieces = open_path(tmp_path / "in").corpus  # type: ignore[union-attr]
    there = store_source(open_path(tmp_path / "in"), tmp_path / "there").corpus.table()
    assert len(pieces) > 1 and there == here
    documents[200] = {"_id": "", "text": 5}
    with pytest.raises(DataError, match=r"line 201: _id is ''(.|\n)*line 201: \"text\" is 5"):
        store_source(open_path(beir(tmp_path / "bad", documents)), tmp_path / "broken")


def test_a_piece_that_failed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, failed = open_path(beir(tmp_path / "in", numbered(3))), []
    tables = type(source.corpus[0]).tables  # type: ignore[union-attr]

    def broken(self: Any, mistakes: Any) -> Any:
        if not failed:
            failed.append(True)
            raise DataError("the network is away")
        return tables(self, mistakes)

    monkeypatch.setattr(type(source.corpus[0]), "tables", broken)  # type: ignore[union-attr]
    with pytest.raises(DataError, match="the network is away"):
        store_source(source, tmp_path / "work")
    assert store_source(source, tmp_path / "work").corpus.num_rows == 3


def test_what_a_worker_wrote_out_of_sight_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranker.data.store.spread", lambda *args, **kwargs: None)
    with pytest.raises(DataError, match="shared storage"):
        store_source(open_path(beir(tmp_path / "in", numbered(3))), tmp_path / "work")


def test_a_table_is_a_corpus_too() -> None:
    from ranker.schemas import CORPUS, Collection, TableCorpus

    table = pa.table([["a", "b"], ["", "T"], ["x", "y"]], schema=CORPUS)
    corpus = TableCorpus(table)
    assert corpus.lookup(["b"]).to_pylist() == [{"doc_id": "b", "title": "T", "text": "y"}]
    assert corpus.missing(["b", "c", None]) == ["c"] and len(corpus) == 2
    from ranker.schemas import QRELS, QUERIES

    collection = Collection("c", "test", table, QUERIES.empty_table(), QRELS.empty_table())
    assert collection.texts() == {"a": "x", "b": "T y"} and collection.texts(["b"]) == {"b": "T y"}
    assert collection.in_memory(["a"]).documents.num_rows == 1


def test_a_corpus_is_a_ray_data_stream(tmp_path: Path, small: None, ray_cluster: Any) -> None:
    from ranker.data import ray_dataset
    from ranker.schemas import TableCorpus

    corpus = store_source(open_path(beir(tmp_path / "in", numbered(100))), tmp_path / "work").corpus
    lengths = ray_dataset(corpus).map(lambda row: {"length": len(row["text"])})
    assert lengths.sum("length") == sum(len(f"text {n}") for n in range(100))
    assert ray_dataset(TableCorpus(corpus.table())).count() == 100


def test_an_id_with_another_text_in_another_file_is_a_mistake(tmp_path: Path) -> None:
    def passages(text: str) -> str:
        passage = {"docid": "007", "title": "", "text": text}
        return json.dumps({"query_id": "1", "query": "who sings", "positive_passages": [passage]}) + "\n"

    (tmp_path / "train.jsonl").write_text(passages("a canary"))
    (tmp_path / "dev.jsonl").write_text(passages("a canary"))
    assert load_splits(str(tmp_path)).corpus.num_rows == 1
    (tmp_path / "dev.jsonl").write_text(passages("an owl, by day"))
    with pytest.raises(DataError, match=r"1 mistake\n.*document '007' had another text before: 'an owl, by day'"):
        load_splits(str(tmp_path))


def test_a_file_of_examples_that_holds_none_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("query,positive\n")
    with pytest.raises(DataError, match="holds no training example; write one record a line"):
        load_splits(str(tmp_path / "train.csv"))


class Stop(BaseException):
    """What a kill is to the code that it meets: nothing after it runs."""


@pytest.mark.parametrize("documents", [{"max_documents": 30}, {}])
def test_a_kill_at_any_step_loses_nothing_and_the_next_call_gives_the_same(
    documents: dict[str, int], tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import shutil

    rows = numbered(120)
    source, reading = open_path(beir(tmp_path / "in", rows, "q\td100\t1\n")), Reading(**documents)
    whole = store_source(source, tmp_path / "whole", reading).corpus.table()
    for step in range(1, 500):
        left = [step]
        with monkeypatch.context() as patch:
            for owner, name in [
                (os, "link"),
                (Path, "replace"),
                (Path, "unlink"),
                (Path, "rename"),
                (shutil, "rmtree"),
            ]:
                real = getattr(owner, name)

                def killed(*args: Any, _real: Any = real, _left: list[int] = left, **options: Any) -> Any:
                    _left[0] -= 1
                    if _left[0] == 0:
                        raise Stop
                    return _real(*args, **options)

                patch.setattr(owner, name, killed)
            try:
                found = store_source(source, tmp_path / f"killed-{step}", reading)
            except Stop:
                found = None
        if found is not None:
            break
        again = store_source(source, tmp_path / f"killed-{step}", reading)
        assert again.corpus.table() == whole, f"killed before step {step}"
    assert 10 < step < 499, "steps are counted, and the last call was not killed"


def test_the_same_mistake_again_is_the_same_error(tmp_path: Path, small: None) -> None:
    source = open_path(beir(tmp_path / "in", numbered(100), "q\td0\t1\nq\tgone\t1\n"))
    for _ in range(2):
        with pytest.raises(DataError, match=r"1 judged doc_ids are not in corpus.jsonl: 'gone'"):
            store_source(source, tmp_path / "work")


def test_what_is_asked_of_the_splits_is_checked_before_the_documents_are_read(tmp_path: Path) -> None:
    def refuse(data: Any) -> None:
        raise DataError(f"no split of {sorted(data.qrels)} will do")

    with pytest.raises(DataError, match=r"no split of \['test'\] will do"):
        store_source(open_path(beir(tmp_path / "in", numbered(3))), tmp_path / "work", check=refuse)
    assert not (tmp_path / "work" / "pieces").exists()


def test_a_file_a_document_does_not_become_a_part_a_document(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(300):
        text = f"<DOC>\n<DOCNO> d{number:03d} </DOCNO>\n<TEXT>\ntext {number}\n</TEXT>\n</DOC>\n"
        (tmp_path / "in" / f"{number:03d}.sgml").write_text(text)
    (tmp_path / "in" / "150.sgml").write_bytes(b"<DOC>\n<DOCNO>150</DOCNO>\ncaf\xe9\n</DOC>\n")
    (tmp_path / "in" / "200.sgml").write_text("<DOC>\n<TEXT>\nno id\n</TEXT>\n</DOC>\n")
    with pytest.raises(DataError) as error:
        store_source(open_path(tmp_path / "in", format="trec"), tmp_path / "work")
    assert "150.sgml, line 3: not UTF-8" in str(error.value) and "200.sgml, line 1: <DOC> without an id" in str(
        error.value
    )
    for number in (150, 200):
        (tmp_path / "in" / f"{number}.sgml").unlink()
    corpus = store_source(open_path(tmp_path / "in", format="trec"), tmp_path / "work").corpus
    assert isinstance(corpus, StoredCorpus) and len(corpus.parts) == 1 and corpus.num_rows == 298
    assert corpus.table()["doc_id"].to_pylist()[149:151] == ["d149", "d151"]
