from pathlib import Path
from typing import Any, NamedTuple

import ir_datasets
import pytest

from ranker.data.errors import DataError
from ranker.data.ir_sets import open_ir_dataset
from ranker.data.splits import Splits
from ranker.data.store import store_source


class Document(NamedTuple):
    doc_id: str
    title: str
    text: str


class Query(NamedTuple):
    query_id: str
    text: str


class Judgement(NamedTuple):
    query_id: str
    doc_id: str
    relevance: int


class Source:
    def __init__(self, judged: bool) -> None:
        self.judged = judged

    def has_qrels(self) -> bool:
        return self.judged

    has_queries = has_qrels

    def has_scoreddocs(self) -> bool:
        return False

    def has_docs(self) -> bool:
        return True

    def docs_iter(self) -> Any:
        return iter([Document("01", "T", "one"), Document("02", "", "two")])

    def queries_iter(self) -> Any:
        return iter([Query("7", "which")])

    def qrels_iter(self) -> Any:
        return iter([Judgement("7", "02", 3)])


def read(tmp_path: Path, identifier: Any, **options: Any) -> Splits:
    return store_source(open_ir_dataset(identifier, **options), tmp_path)


def test_splits_below_an_id_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sources = {"toy": Source(False), "toy/train": Source(True), "toy/validation": Source(True)}
    monkeypatch.setattr(ir_datasets, "load", sources.__getitem__)
    data = read(tmp_path / "all", "toy")
    assert sorted(data.qrels) == ["dev", "train"]
    assert data.corpus.table()["doc_id"].to_pylist() == ["01", "02"]
    assert data.qrels["dev"].to_pylist() == [{"query_id": "7", "doc_id": "02", "relevance": 3}]
    assert list(read(tmp_path / "one", "toy/train").qrels) == ["train"]


def test_without_network_and_cache_one_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import requests

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path))
    monkeypatch.setattr(requests, "get", no_network)
    with pytest.raises(DataError) as error:
        read(tmp_path / "work", "msmarco-passage/dev/small")
    for part in (
        "msmarco-passage/dev/small",
        str(tmp_path),
        "ir_datasets export msmarco-passage/dev/small $part",
        "IR_DATASETS_HOME",
        "BEIR, TREC or MS MARCO layout",
    ):
        assert part in str(error.value)


def test_an_id_without_judgements_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {"toy": Source(False)}
    monkeypatch.setattr(ir_datasets, "load", sources.__getitem__)
    with pytest.raises(DataError, match="no judgements below it"):
        open_ir_dataset("toy")
