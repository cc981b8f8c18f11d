import gzip
import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.data.errors import DataError
from ranker.data.files import find_files
from ranker.data.formats.example_files import (
    example_source,
    read_examples,
    recognise_examples,
    split_of,
)
from ranker.data.source import FORMATS, ExampleSource
from ranker.schemas import EXAMPLES

Records = list[dict[str, Any]]

FLAG = [
    {"query": "who sings", "pos": ["a canary", "a tenor"], "neg": ["a dog"], "pos_scores": [9, 8.5], "neg_scores": [1]},
    {"query": "who bärks", "pos": ["a dog"], "neg": ["a cat", "a\ntree"], "pos_scores": [7.25], "neg_scores": [-1, 0]},
]
TEVATRON = [
    {
        "query_id": "007",
        "query": "who sings",
        "positive_passages": [{"docid": "01", "title": "Canary", "text": "It sings."}],
        "negative_passages": [{"docid": "1", "title": "", "text": "a dog"}],
    },
    {
        "query_id": "7",
        "query": "who barks",
        "positive_passages": [{"docid": "1", "title": "", "text": "a dog"}],
        "negative_passages": [],
    },
]
TRIPLES = [
    {"anchor": "who sings", "good": "a canary", "bad": "a dog"},
    {"anchor": "who barks", "good": "a dog", "bad": 'a cat, or "none"'},
]
LISTED = [
    {"query": "who sings", "docs": ["a canary", "a dog"], "labels": [2.0, 0.1]},
    {"query": "who barks", "docs": ["a dog"], "labels": [1.0]},
]
MARGINS = [{"query": "who sings", "p1": "a canary", "p2": "a dog", "label": 3.5}]
SCORED = [{"query": "q", "positive": "a", "negative_1": "x", "negative_2": "y", "label": [7.5, 3.0, 1.0]}]
LABELLED = [{"sentence1": "who sings", "sentence2": "a canary", "score": 0.75}]
MS_MARCO = [{"passages": {"is_selected": [0, 1], "passage_text": ["x", "a"]}, "query": "q", "query_id": 19699}]


def lines(records: Records) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def jsonl(path: Path, records: Records) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lines(records))
    return path


def test_a_group_is_what_its_line_says(tmp_path: Path) -> None:
    table = read_examples(jsonl(tmp_path / "train.jsonl", TEVATRON))
    assert table.schema == EXAMPLES
    assert table.to_pylist() == [
        {
            "query_id": "007",
            "query": "who sings",
            "documents": ["Canary It sings.", "a dog"],
            "labels": [1.0, 0.0],
            "doc_ids": ["01", "1"],
            "scores": None,
        },
        {
            "query_id": "7",
            "query": "who barks",
            "documents": ["a dog"],
            "labels": [1.0],
            "doc_ids": ["1"],
            "scores": None,
        },
    ]


@pytest.mark.parametrize("records", [FLAG, TEVATRON, TRIPLES, LISTED, MARGINS, SCORED, LABELLED, MS_MARCO])
def test_every_kind_of_file_gives_the_same_rows(records: Records, tmp_path: Path) -> None:
    expected = read_examples(jsonl(tmp_path / "a" / "x.jsonl", records))
    assert expected.num_rows == len(records)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(lines(records)))
    (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(records).replace(b"\n", b"\r\n\r\n"))
    (tmp_path / "lines.json").write_bytes(lines(records))
    (tmp_path / "array.json").write_text(json.dumps(records, indent=1))
    (tmp_path / "short.json").write_text(json.dumps(records))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "x.parquet", row_group_size=1)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "x.parquet", "x.parquet")
    for name in ("x.jsonl.gz", "marked.jsonl", "lines.json", "array.json", "short.json", "x.parquet", "x.zip"):
        assert read_examples(tmp_path / name) == expected, name


def test_quora_pairs(tmp_path: Path) -> None:
    path = tmp_path / "quora_duplicate_questions.tsv"
    path.write_text(
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        '0\t1\t02\tWhat is "x"?\t"What, in ""y"", is x?"\t0\n7\t1\t3\tWhat is "x"?\tx?\t1\n'
    )
    rows = read_examples(path).to_pylist()
    assert rows[0] == {
        "query_id": "1",
        "query": 'What is "x"?',
        "documents": ['What, in "y", is x?'],
        "labels": [0.0],
        "doc_ids": ["02"],
        "scores": None,
    }
    assert (rows[1]["query_id"], rows[1]["doc_ids"], rows[1]["labels"]) == ("1", ["3"], [1.0])


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_texts_count_in_the_order_in_which_the_library_datasets_gives_the_columns(kind: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "train.jsonl", TRIPLES)
    if kind == "csv":
        path = tmp_path / "train.csv"
        datasets.Dataset.from_list(TRIPLES).to_csv(path)
    if kind == "parquet":
        path = tmp_path / "train.parquet"
        datasets.Dataset.from_list(TRIPLES).to_parquet(path)
    loader = {"jsonl": "json"}.get(kind, kind)
    oracle = datasets.load_dataset(loader, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    query, positive, negative = oracle.column_names
    found = read_examples(path)
    assert found["query"].to_pylist() == oracle[query][:]
    documents = [[good, bad] for good, bad in zip(oracle[positive], oracle[negative], strict=True)]
    assert found["documents"].to_pylist() == documents
    assert found["labels"].to_pylist() == [[1.0, 0.0]] * 2


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00003.parquet", "train"),
        ("data/validation-00000-of-00001.parquet", "dev"),
        ("triplet/dev.jsonl.gz", "dev"),
        ("val.csv", "dev"),
        ("valid_2.jsonl", "dev"),
        ("Test.tsv", "test"),
        ("my_eval.jsonl", "test"),
        ("dev/part-0.jsonl", "dev"),
        ("dev/train.jsonl", "train"),
        ("latest.jsonl", None),
        ("retrieval.jsonl", None),
        ("devices.jsonl", None),
        ("values.jsonl", None),
    ],
)
def test_the_split_is_a_word_of_the_name(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_folder_and_a_zip_of_it_are_read_by_split_in_name_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "pets"
    jsonl(folder / "data" / "train-00001-of-00002.jsonl", [{"query": "b", "pos": ["x"]}])
    jsonl(folder / "data" / "train-00000-of-00002.jsonl", [{"query": "a", "pos": ["x"]}])
    jsonl(folder / "dev.jsonl", [{"query": "c", "pos": ["x"]}])
    jsonl(folder / "dev-empty.jsonl", [])
    jsonl(folder / "corpus.jsonl", [{"_id": "1", "text": "t"}])
    (folder / "README.md").write_text("# Pets")
    (folder / "notes.txt").write_text('{"query": "no", "pos": ["x"]}\n')
    (folder / "dataset_info.json").write_text('{"builder_name": "json", "version": "1.0"}')
    archive = tmp_path / "pets.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for file in sorted(folder.rglob("*.*")):
            target.write(file, file.relative_to(tmp_path))
    for place in (folder, archive):
        files = find_files(place)
        assert recognise_examples("flagembedding", files)
        assert not recognise_examples("tevatron", files) and not recognise_examples("sentence-transformers", files)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            source = FORMATS["flagembedding"].open(files)
        assert isinstance(source, ExampleSource)
        assert (source.name, source.format, list(source.examples)) == ("pets", "flagembedding", ["train", "dev"])
        assert [message.rpartition("/")[2] for message in caplog.messages] == [
            "notes.txt: is no part of training examples and is left out",
            "corpus.jsonl: not read, it holds no training examples",
        ]
        assert read_examples(place)["query"].to_pylist() == ["a", "b", "c"]
        assert read_examples(place, split="dev")["query"].to_pylist() == ["c"]
    with pytest.raises(DataError, match=r"no split 'test'; known: dev, train"):
        read_examples(folder, split="test")


@pytest.mark.parametrize(
    ("records", "format"),
    [(FLAG, "flagembedding"), (TEVATRON, "tevatron"), (TRIPLES, "sentence-transformers"),
     (MS_MARCO, "sentence-transformers")],
)  # fmt: skip
def test_a_format_knows_its_own(records: Records, format: str, tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", records)
    files = find_files(tmp_path)
    known = [name for name in ("flagembedding", "tevatron", "sentence-transformers") if FORMATS[name].recognise(files)]
    assert known == [format]
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: pair\n---\n")
    assert not FORMATS[format].recognise(find_files(tmp_path))


def test_collections_of_other_formats_are_not_taken_for_examples(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "collection.tsv").write_text("0\tA canary sings.\n1\tA dog barks.\n")
    (tmp_path / "queries.tsv").write_text("who sings\tthe question, asked again\n")
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    (tmp_path / "corpus.csv").write_text("doc_id,title,text\n1,a,b\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    for place in (pets, tmp_path):
        for name in ("flagembedding", "tevatron", "sentence-transformers"):
            assert not FORMATS[name].recognise(find_files(place))


def test_a_file_in_no_layout_is_an_error_where_its_name_says_a_split(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", FLAG)
    jsonl(tmp_path / "dev.jsonl", [{"question": "q", "gold": ["a"]}])
    (tmp_path / "test.jsonl").write_text("no JSON\n")
    with pytest.raises(DataError) as error:
        read_examples(tmp_path)
    for part in (
        "dev.jsonl: columns ['question', 'gold']: ",
        "known layouts are",
        "test.jsonl: no record in its first",
    ):
        assert part in str(error.value), part
    jsonl(tmp_path / "dev.jsonl", [])
    jsonl(tmp_path / "test.jsonl", [])
    assert read_examples(tmp_path).num_rows == 2
    jsonl(tmp_path / "train.jsonl", [])
    with pytest.raises(DataError, match=r"no training examples in train\.jsonl, dev\.jsonl, test\.jsonl"):
        read_examples(tmp_path)


def test_columns_are_named_by_whom_the_file_is_from(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("nr,frage,antwort,gut\n1,who sings,a canary,0.5\n")
    columns = {"query": "frage", "document": "antwort", "label": "gut"}
    row = read_examples(tmp_path, columns=columns).to_pylist()[0]
    assert (row["query"], row["documents"], row["labels"]) == ("who sings", ["a canary"], [0.5])
    files = list(find_files(tmp_path).entries.values())
    found = example_source("mine", {"dev": files}, layout="sentence-transformers", columns=columns)
    assert list(found.examples) == ["dev"] and found.name == "mine"
    with pytest.raises(DataError, match=r"unknown name 'qeury'; did you mean 'query'"):
        read_examples(tmp_path, columns={"qeury": "frage"})
