import gzip
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pytest
from ir_datasets.formats import TrecQrels, TsvDocPairs, TsvQueries

from ranker.data import files as files_module
from ranker.data.errors import DataError, Mistakes
from ranker.data.files import find_files
from ranker.data.formats.msmarco import open_msmarco, ranked_in_order
from ranker.data.formats.msmarco_files import recognise_msmarco
from ranker.data.pieces import Piece
from ranker.data.source import ExampleSource, Source
from ranker.schemas import EXAMPLES, RUN

FILES = {
    "collection.tsv": "0\tCanaries sing.\n007\ttabs\tare \ttext\n2\t\n",
    "queries.train.tsv": "1\twho sings\n02\twhat is a tab\tfor\n",
    "queries.dev.small.tsv": "3\twho flies\n",
    "queries.dev.tsv": "3\twho flies\n4\twho swims\n",
    "queries.eval.tsv": "5\twho runs\n",
    "qrels.train.tsv": "1\t0\t0\t1\n02\t0\t007\t1\n",
    "qrels.dev.small.tsv": "3\t0\t0\t1\n",
    "qrels.dev.tsv": "3\t0\t0\t1\n4\t0\t2\t1\n",
    "2019qrels-pass.txt": "4 0 0 0\n4 0 007 3\n4 0 2 1\n",
    "top1000.dev.tsv": "3\t007\twho flies\ttabs\n4\t2\twho swims\t\n3\t0\twho flies\tCanaries sing.\n",
    "qidpidtriples.train.full.tsv": "1\t0\t2\n02\t007\t0\n1\t0\t007\n",
}


def lay(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder


def opened(path: Path, **options: Any) -> Source:
    source = pickle.loads(pickle.dumps(open_msmarco(find_files(path), **options)))
    assert isinstance(source, Source)
    return source


def rows(pieces: Sequence[Piece], mistakes: Mistakes) -> list[dict[str, Any]]:
    return [row for piece in pieces for table in piece.tables(mistakes) for row in table.to_pylist()]


def tables(source: Source) -> dict[str, Any]:
    mistakes = Mistakes(source.name)
    run = source.run(mistakes)
    found = {
        "corpus": rows(source.corpus, mistakes),
        "queries": {row["query_id"]: row["text"] for row in source.queries(mistakes).to_pylist()},
        "qrels": {split: table.to_pylist() for split, table in source.qrels(mistakes).items()},
        "run": None if run is None else run.to_pylist(),
        "triples": {split: table.to_pylist() for split, table in source.triples(mistakes).items()},
    }
    mistakes.raise_if_any()
    return found


def test_every_file_has_its_place(tmp_path: Path) -> None:
    folder = lay(tmp_path / "msmarco", {**FILES, "README.md": "what this is\n"})
    assert recognise_msmarco(find_files(folder))
    source = opened(folder)
    found = tables(source)
    assert [tuple(row.values()) for row in found["corpus"]] == [
        ("0", "", "Canaries sing."),
        ("007", "", "tabs\tare \ttext"),
        ("2", "", ""),
    ]
    assert found["queries"] == {
        "1": "who sings",
        "02": "what is a tab\tfor",
        "3": "who flies",
        "4": "who swims",
        "5": "who runs",
    }
    # dev is dev.small, not the whole of dev; the Deep Learning track is test, and counts from 2 on.
    assert {split: len(table) for split, table in found["qrels"].items()} == {"test": 3, "dev": 1, "train": 2}
    assert source.relevance_levels == {"test": 2}
    # Candidates have no score: the order of the file is their rank.
    assert [tuple(row.values()) for row in found["run"]] == [
        ("3", "007", -1.0, 1),
        ("4", "2", -1.0, 1),
        ("3", "0", -2.0, 2),
    ]
    assert [tuple(row.values()) for row in found["triples"]["train"]] == [
        ("1", "0", "2"),
        ("02", "007", "0"),
        ("1", "0", "007"),
    ]


class Download:
    """What ir_datasets takes for a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def path(self, force: bool = True) -> str:
        return str(self.file)

    def stream(self) -> IO[bytes]:
        return self.file.open("rb")


def test_ir_datasets_reads_the_same(tmp_path: Path) -> None:
    # It knows no tabs in a text.
    folder = lay(tmp_path / "msmarco", {**FILES, "collection.tsv": "0\tCanaries sing.\n007\t“é” \n2\t\n"})
    found = tables(opened(folder))
    documents = TsvQueries(Download(folder / "collection.tsv")).queries_iter()
    assert [(row["doc_id"], row["text"]) for row in found["corpus"]] == list(map(tuple, documents))
    queries = TsvQueries(Download(folder / "queries.dev.tsv")).queries_iter()
    assert [item for item in found["queries"].items() if item[0] in "34"] == list(map(tuple, queries))
    qrels = TrecQrels(Download(folder / "2019qrels-pass.txt"), {}).qrels_iter()
    assert [tuple(row.values()) for row in found["qrels"]["test"]] == [tuple(each[:3]) for each in qrels]
    triples = TsvDocPairs(Download(folder / "qidpidtriples.train.full.tsv")).docpairs_iter()
    assert [tuple(row.values()) for row in found["triples"]["train"]] == list(map(tuple, triples))


def test_a_zip_packed_files_subfolders_headers_and_line_ends_of_windows(tmp_path: Path) -> None:
    plain = tables(opened(lay(tmp_path / "msmarco", FILES)))
    heads = {"coll": "pid\tpassage\n", "quer": "QID\ttext\n", "qrel": "qid\t0\tpid\trel\n", "2019": "qid 0 pid rel\n"}
    odd = {f"part/{name}.gz": (heads.get(name[:4], "") + text) for name, text in FILES.items()}
    odd["part/collection.tsv.gz"] = "\ufeff" + odd["part/collection.tsv.gz"].replace("\n", "\r\n")
    odd["part/queries.dev.tsv.gz"] = "\ufeff" + odd["part/queries.dev.tsv.gz"].replace("\n", "\r\n\r\n")
    folder = lay(tmp_path / "odd", odd)
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        for name in odd:
            archive.write(folder / name, f"odd/{name}")
    assert recognise_msmarco(find_files(tmp_path / "odd.zip"))
    assert tables(opened(tmp_path / "odd.zip")) == plain


def test_documents_have_an_address_a_title_and_a_body(tmp_path: Path) -> None:
    text = "D301595\thttp://a.b/\tBirds\tThey\tsing.\nD7\t\t\t\n"
    folder = lay(tmp_path / "docs", {"msmarco-docs.tsv": text, "msmarco-docdev-top100": "2 Q0 D7 1 -5.5 IndriQL\n"})
    found = tables(opened(folder))
    assert found["corpus"] == [
        {"doc_id": "D301595", "title": "Birds", "text": "They\tsing."},
        {"doc_id": "D7", "title": "", "text": ""},
    ]
    assert found["run"] == [{"query_id": "2", "doc_id": "D7", "score": -5.5, "rank": 1}]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("collection.tsv", "corpus"),
        ("queries.train.tsv", "queries"),
        ("qrels.dev.tsv", "qrels"),
        ("qidpidtriples.train.full.tsv", "triples"),
    ],
)
def test_one_file_alone_is_what_it_is(tmp_path: Path, name: str, part: str) -> None:
    file = lay(tmp_path / "msmarco", FILES) / name
    assert recognise_msmarco(find_files(file))
    found = tables(opened(file))
    assert [key for key, value in found.items() if value] == [part]


def test_triples_of_texts_alone_are_examples(tmp_path: Path) -> None:
    text = "who sings\tCanaries sing.\tA cat does.\nwho flies\tBirds do\tstones\nwho sings\tBirds sing\tstones\n"
    folder = lay(tmp_path / "t", {"triples.train.small.tsv": text})
    assert recognise_msmarco(find_files(folder))
    source = open_msmarco(find_files(folder))
    assert isinstance(source, ExampleSource) and list(source.examples) == ["train"]
    mistakes = Mistakes("t")
    found = [table for piece in source.examples["train"] for table in piece.tables(mistakes)]
    assert [table.schema for table in found] == [EXAMPLES]
    first, second, third = found[0].to_pylist()
    assert first == {
        "query_id": first["query_id"],
        "query": "who sings",
        "documents": ["Canaries sing.", "A cat does."],
        "labels": [1.0, 0.0],
        "doc_ids": None,
        "scores": None,
    }
    assert second["documents"] == ["Birds do", "stones"]
    assert first["query_id"] == third["query_id"] != second["query_id"] and len(first["query_id"]) == 16


def test_a_line_and_a_block_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passages = "".join(f"{n}\tpassage {n}\twith a tab\n" for n in range(200))
    texts = "".join(f"query {n}\tp {n}\tn\n" for n in range(200))
    quick, slow = tmp_path / "quick", tmp_path / "slow"
    lay(quick, {"collection.tsv": passages, "triples.tsv": texts, "top1000.dev": FILES["top1000.dev.tsv"]})
    # A carriage return sends every block to the lines.
    lay(slow, {p.name: p.read_text().replace("\n", "\r\n") for p in quick.iterdir()})
    assert tables(opened(quick)) == tables(opened(slow))
    alone = [open_msmarco(find_files(folder / "triples.tsv")) for folder in (quick, slow)]
    found = [rows(s.examples["train"], Mistakes("t")) for s in alone if isinstance(s, ExampleSource)]
    assert len(found[0]) == 200 and found[0] == found[1]
    # Spans and blocks cut anywhere.
    monkeypatch.setattr(files_module, "SPAN_BYTES", 1000)
    monkeypatch.setattr(files_module, "BLOCK_BYTES", 300)
    cut = opened(quick)
    assert len(cut.corpus) > 5 and tables(cut)["corpus"] == rows(opened(slow).corpus, Mistakes("t"))
    assert list(cut.corpus[-1].places({"199"})) == [("199", f"{quick / 'collection.tsv'}, line 200")]


def test_the_first_triples_are_read_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = lay(tmp_path / "msmarco", FILES) / "qidpidtriples.train.full.tsv"
    assert len(tables(opened(file, max_triples=3))["triples"]["train"]) == 3
    assert caplog.text == ""
    assert tables(opened(file, max_triples=1))["triples"]["train"] == [
        {"query_id": "1", "positive_id": "0", "negative_id": "2"}
    ]
    assert "the first 1 of qidpidtriples.train.full.tsv are read; max_triples says so" in caplog.text
    with pytest.raises(DataError, match="max_triples is -1"):
        opened(file, max_triples=-1)


def test_ranks_are_of_the_order_within_a_query() -> None:
    pairs = pa.table({"query_id": ["b", "a", "b", "b", "a"], "doc_id": ["1", "2", "3", "4", "5"]})
    assert ranked_in_order(pairs)["rank"].to_pylist() == [1, 1, 2, 3, 2]
    assert ranked_in_order(pairs.slice(0, 0)) == RUN.empty_table()


def test_every_mistake_of_every_file_comes_with_file_line_value_and_remedy(tmp_path: Path) -> None:
    folder = lay(
        tmp_path / "bad",
        {
            "collection.tsv": "1\tgood\nno tab\n \tno id\n",
            "queries.train.tsv": "1\twho\n2\t \n",
            "queries.dev.tsv": "1\twhom\n",
            "2019qrels-pass.txt": "1 0 7 1\n1 0 7\n",
            "2020qrels-pass.txt": "1 0 7 1\n1 0 7 2\n",
            "top1000.dev.tsv": "1\t7\tq\tp\n1\t\tq\tp\n1\t7\tq\tp\n",
            "qidpidtriples.train.tsv": "1\t7\n",
        },
    )
    source = opened(folder)
    mistakes = Mistakes("bad")
    assert len(rows(source.corpus, mistakes)) == 1
    queries = source.queries(mistakes)
    assert queries.to_pylist() == [{"query_id": "1", "text": "whom"}]
    assert source.qrels(mistakes)["test"].num_rows == 1
    run = source.run(mistakes)
    assert run is not None and run.num_rows == 1
    assert source.triples(mistakes)["train"].num_rows == 0
    assert mistakes.count == 9
    for part in (
        "collection.tsv, line 2: 1 fields in 'no tab'; write pid, passage with tabs between",
        "collection.tsv, line 3: pid blank in",
        "queries.train.tsv, line 2: the text of query '2' is empty",
        f"queries.train.tsv, line 1: query '1' is 'who' here and 'whom' at {folder}/queries.dev.tsv, line 1",
        "2019qrels-pass.txt, line 2: 3 fields",
        f"2020qrels-pass.txt, line 2: ('1', '7') has relevance 2 here and 1 at {folder}/2019qrels-pass.txt, line 1",
        "top1000.dev.tsv, line 2: pid blank",
        "top1000.dev.tsv, line 3: document '7' stands twice in the list of query '1'",
        "qidpidtriples.train.tsv, line 1: 2 fields",
    ):
        assert any(part in line for line in mistakes.found), (part, mistakes.found)


def test_bytes_of_another_encoding_name_their_line_and_can_be_read(tmp_path: Path) -> None:
    lay(tmp_path / "m", {})
    (tmp_path / "m" / "collection.tsv").write_bytes("1\ta\n2\tcaf\xe9\n".encode("latin-1"))
    mistakes = Mistakes("m")
    assert len(rows(opened(tmp_path / "m").corpus, mistakes)) == 1
    assert "collection.tsv, line 2: not UTF-8 at byte 5" in mistakes.found[0]
    source = open_msmarco(find_files(tmp_path / "m").read_as("latin-1", "error"))
    assert isinstance(source, Source) and rows(source.corpus, mistakes)[1]["text"] == "café"
