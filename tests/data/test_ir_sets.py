from pathlib import Path
from typing import Any, NamedTuple

import ir_datasets
import pyarrow as pa
import pytest

from ranker.data.errors import DataError
from ranker.data.ir_sets import open_ir_dataset, ranked
from ranker.data.splits import Splits
from ranker.data.store import store_source
from ranker.schemas import RUN


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


class Ranked(NamedTuple):
    query_id: str
    doc_id: str
    score: float


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


def test_a_document_that_is_judged_or_ranked_twice_counts_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Twice(Source):
        def qrels_iter(self) -> Any:
            return iter([Judgement("7", "02", 3), Judgement("7", "01", 1), Judgement("7", "02", 0)])

        def has_scoreddocs(self) -> bool:
            return True

        def scoreddocs_iter(self) -> Any:
            return iter([Ranked("7", "01", 0.5), Ranked("7", "02", 1.5), Ranked("7", "01", 0.4)])

    monkeypatch.setattr(ir_datasets, "load", lambda name: Twice(True))
    found = read(tmp_path, "some/test")
    judged = {row["doc_id"]: row["relevance"] for row in found.qrels["test"].to_pylist()}
    assert judged == {"01": 1, "02": 0} and found.qrels["test"].num_rows == 2
    assert "1 judgements contradict an earlier one" in caplog.text
    assert found.run is not None and found.run.select(["doc_id", "rank"]).to_pylist() == [
        {"doc_id": "02", "rank": 1},
        {"doc_id": "01", "rank": 2},
    ]


@pytest.mark.parametrize(
    ("identifier", "split"),
    [
        ("passages/train/judged", "train"),
        ("passages/dev/small", "dev"),
        ("passages/valid", "dev"),
        ("train-news/2019", "test"),
    ],
)
def test_the_split_of_an_id_is_its_last_part_that_names_one(
    identifier: str, split: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ir_datasets, "load", {identifier: Source(True)}.__getitem__)
    assert list(read(tmp_path, identifier).qrels) == [split]


def test_of_two_names_of_a_split_the_first_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Other(Source):
        def qrels_iter(self) -> Any:
            return iter([Judgement("7", "01", 1)])

    sources = {"toy": Source(False), "toy/dev": Source(True), "toy/validation": Other(True)}
    monkeypatch.setattr(ir_datasets, "load", sources.__getitem__)
    assert read(tmp_path, "toy").qrels["dev"]["doc_id"].to_pylist() == ["02"]


def test_triples_of_an_id_without_a_train_split_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ir_datasets, "load", {"toy/dev": Source(True)}.__getitem__)
    with pytest.raises(DataError, match=r"max_triples 5: ir_datasets:toy/dev gives the splits \['dev'\]"):
        open_ir_dataset("toy/dev", max_triples=5)


def test_ranks_follow_the_scores_and_a_document_that_comes_twice_keeps_its_best() -> None:
    rows = [("q2", "b", 1.0), ("q1", "a", 0.5), ("q2", "a", 2.0), ("q2", "b", 3.0), ("q1", "b", 0.5), ("q2", "c", 1.0)]
    run = pa.table([*map(list, zip(*rows, strict=True)), [0] * 6], schema=RUN)
    assert [(row["query_id"], row["doc_id"], row["rank"]) for row in ranked(run).to_pylist()] == [
        ("q2", "b", 1), ("q2", "a", 2), ("q2", "c", 3), ("q1", "a", 1), ("q1", "b", 2),
    ]  # fmt: skip
