import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from ranker.data.errors import DataError, Mistakes
from ranker.data.files import find_files
from ranker.data.formats.example_files import (
    open_tevatron,
    read_examples,
)
from ranker.data.source import FORMATS, Source

Records = list[dict[str, Any]]


def jsonl(path: Path, records: Records) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


JUDGED = [
    {"query_id": "01", "query_text": "who sings", "query_image": None, "positive_document_ids": ["007"],
     "negative_document_ids": ["7", "8"]},
    {"query_id": "2", "query_text": "who barks", "positive_document_ids": ["7"], "negative_document_ids": []},
]  # fmt: skip
DOCUMENTS = [
    {"docid": "007", "document_text": "a canary"},
    {"docid": "7", "title": "Dog", "document_text": "it barks"},
    {"docid": 8, "document_text": ""},
]


def test_tevatron_with_ids_is_a_collection(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", JUDGED)
    jsonl(tmp_path / "dev.jsonl", JUDGED[:1])
    jsonl(tmp_path / "corpus.jsonl", DOCUMENTS)
    files = find_files(tmp_path)
    assert FORMATS["tevatron"].recognise(files) and not FORMATS["sentence-transformers"].recognise(files)
    source = pickle.loads(pickle.dumps(open_tevatron(files)))
    assert isinstance(source, Source)
    mistakes = Mistakes("")
    corpus = [row for piece in source.corpus for table in piece.tables(mistakes) for row in table.to_pylist()]
    assert [tuple(row.values()) for row in corpus] == [("007", "", "a canary"), ("7", "Dog", "it barks"), ("8", "", "")]
    assert source.queries(mistakes).to_pylist() == [
        {"query_id": "01", "text": "who sings"},
        {"query_id": "2", "text": "who barks"},
    ]
    qrels = {split: [tuple(row.values()) for row in t.to_pylist()] for split, t in source.qrels(mistakes).items()}
    assert qrels == {
        "train": [("01", "007", 1), ("01", "7", 0), ("01", "8", 0), ("2", "7", 1)],
        "dev": [("01", "007", 1), ("01", "7", 0), ("01", "8", 0)],
    }
    assert not mistakes.count
    assert list(source.corpus[0].places({"7"})) == [("7", f"{tmp_path}/corpus.jsonl, line 2")]


def test_what_is_wrong_in_tevatron_with_ids_is_said_once(tmp_path: Path) -> None:
    first, second = JUDGED
    wrong = [
        {**first, "negative_document_ids": ["007"]},
        {**second, "query_text": None},
        first,
        {**first, "query_text": "who else"},
        {**first, "positive_document_ids": ["7"], "negative_document_ids": []},
    ]
    jsonl(tmp_path / "train.jsonl", wrong)
    jsonl(tmp_path / "corpus.jsonl", [*DOCUMENTS, {"docid": "9", "document_text": None}, {"document_text": "x"}])
    source = open_tevatron(find_files(tmp_path))
    assert isinstance(source, Source)
    mistakes = Mistakes("")
    for piece in source.corpus:
        list(piece.tables(mistakes))
    source.queries(mistakes)
    source.qrels(mistakes)
    for part in (
        'corpus.jsonl, line 4: "text" is missing',
        'corpus.jsonl, line 5: "docid" is missing',
        "train.jsonl, line 1: document '007' is a positive and a negative of query '01'",
        'train.jsonl, line 2: "query_text" is None; it must be a text',
        "train.jsonl: query '01' is 'who sings' and 'who else'; ids must differ",
    ):
        assert sum(part in line for line in mistakes.found) == 1, part
    assert "document '7' is a positive and a negative of query '01'" in mistakes.found[-1]


def test_tevatron_with_ids_needs_its_corpus(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", JUDGED)
    with pytest.raises(DataError, match=r"no file beside them the documents; put a JSONL file with docid"):
        open_tevatron(find_files(tmp_path))
    with pytest.raises(DataError, match="open the folder that holds both"):
        read_examples(tmp_path)
