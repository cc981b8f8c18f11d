import gzip
from pathlib import Path

import pytest

from ranker.data.catalog import load_splits
from ranker.data.errors import DataError
from ranker.data.files import find_files
from ranker.data.formats.msmarco import open_msmarco
from ranker.data.formats.msmarco_files import kind_of, recognise_msmarco, split_of
from ranker.data.source import Source


def lay(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder


def test_kinds(tmp_path: Path) -> None:
    texts = {
        "triples.train.small.tsv": "who sings\ta b\tc\n",
        "qidpidtriples.train.full.2.tsv.gz": "1\t2\t3\n",
        "msmarco-passagetest2019-top1000.tsv": "1\t2\tq q\tp p\n",
        "msmarco-doctest2019-top100.gz": "1 Q0 D2 1 -4.3 IndriQL\n",
        "msmarco-test2019-queries.tsv": "1\tq\n",
        "run.trec": "1 Q0 2 1 0.5 t\n",
        "documents.trec": "<DOC>\n",
        "queries.jsonl": "{}\n",
    }
    files = find_files(lay(tmp_path / "m", texts))
    assert [kind_of(files.entries[name]) for name in texts] == [
        *("texts", "triples", "candidates", "run", "queries", "run", None, None)
    ]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("qrels.train.tsv", "train"),
        ("msmarco-doctrain-qrels.tsv.gz", "train"),
        ("qrels.dev.small.tsv", "dev"),
        ("passv2_dev2_qrels.tsv", "dev"),
        ("2019qrels-pass.txt", "test"),
        ("qrels.dl20-passage", "test"),
        ("qrels.tsv", "test"),
        ("qrels.eval.tsv", "eval"),
        ("qrels.Mine-2.tsv", "Mine-2"),
    ],
)
def test_the_split_is_in_the_name(name: str, split: str) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("name", "text", "levels"),
    [
        ("2020qrels-pass.txt", "1 Q0 2 3\n", {"test": 2}),
        ("2020qrels-pass.txt", "1 Q0 2 1\n", {}),
        ("2019qrels-docs.txt", "1 Q0 2 3\n", {}),
        ("qrels.test.tsv", "1 Q0 2 3\n", {}),
    ],
)
def test_grade_1_is_relevant_but_for_the_passages_of_deep_learning(
    tmp_path: Path, name: str, text: str, levels: dict[str, int]
) -> None:
    source = open_msmarco(find_files(lay(tmp_path / "m", {name: text})))
    assert isinstance(source, Source) and source.relevance_levels == levels


def test_folders_of_other_formats_are_not_recognised(tmp_path: Path) -> None:
    beir = lay(tmp_path / "beir", {"corpus.jsonl": "{}\n", "queries.jsonl": "{}\n", "qrels/test.tsv": "a\tb\t1\n"})
    pairs = lay(tmp_path / "pairs", {"triples.tsv": "query\tpositive\tnegative\na b\tc d\te f\n"})
    three = lay(tmp_path / "three", {"qrels.test.tsv": "query-id\tcorpus-id\tscore\nq\td\t1\n"})
    for folder in (beir, pairs, three):
        assert not recognise_msmarco(find_files(folder)), folder
    with pytest.raises(DataError, match=r"no file of MS MARCO among triples.tsv; MS MARCO holds collection.tsv or"):
        open_msmarco(find_files(pairs))


def test_candidates_alone_hold_documents_and_queries(tmp_path: Path) -> None:
    candidates = "3\t007\twho flies\ttabs\tare\n4\t007\twho swims\ttabs\tare\n4\t2\twho swims\t\n"
    folder = lay(tmp_path / "m", {"top1000.dev": candidates, "qrels.dev.small.tsv": "4\t0\t2\t1\n"})
    found = load_splits(str(folder)).collection("dev")
    assert found.corpus.to_pylist() == [
        {"doc_id": "007", "title": "", "text": "tabs\tare"},
        {"doc_id": "2", "title": "", "text": ""},
    ]
    assert found.queries.to_pylist() == [{"query_id": "4", "text": "who swims"}]
    assert found.run is not None and found.run["doc_id"].to_pylist() == ["007", "2"]
    (folder / "top1000.dev").write_text(f"{candidates}6\t2\twho\n")
    with pytest.raises(DataError, match=r"1 mistake\n.*line 4: 3 fields"):
        load_splits(str(folder))
    (folder / "top1000.dev").write_text(f"{candidates}5\t2\twho?\tOWLS\n")
    with pytest.raises(DataError, match="document '2' had another text before: 'OWLS'"):
        load_splits(str(folder))


def test_a_table_of_offsets_is_no_document_and_what_is_left_out_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"msmarco-docs.tsv": "D1\thttp://a\tT\tbody\n", "msmarco-docs-lookup.tsv": "D1\t0\t0\n", "README.md": "x"}
    folder = lay(tmp_path / "m", files)
    assert load_splits(str(folder)).corpus.table().to_pylist() == [{"doc_id": "D1", "title": "T", "text": "body"}]
    assert "msmarco-docs-lookup.tsv: is no part of MS MARCO" in caplog.text and "README" not in caplog.text
    (folder / "more.Z").write_bytes(b"\x1f\x9d\x90")
    with pytest.raises(DataError, match=r"more\.Z: is packed with compress; unpack it"):
        load_splits(str(folder))
