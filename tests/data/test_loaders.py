import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from ranker.data import (
    BEIRDataLoader,
    CustomDataLoader,
    DataError,
    DataPreprocessor,
    MSMARCODataLoader,
    QuoraDataLoader,
    TRECDLDataLoader,
)
from ranker.schemas import CORPUS, QRELS, QUERIES, RUN, Collection


def test_the_sketched_lines_work_on_a_copy(pets: Path) -> None:
    train, val, test = MSMARCODataLoader(path=str(pets)).load_and_split()
    assert [(c.split, c.queries.num_rows) for c in (train, val, test)] == [("train", 6), ("dev", 2), ("test", 2)]
    triples = DataPreprocessor().create_triples(train)
    assert len(triples) == 6
    assert triples[0][:2] == ("which animal guards a house", "Dogs A dog barks at strangers and guards the house.")


@pytest.mark.parametrize("loader", [CustomDataLoader, BEIRDataLoader, QuoraDataLoader])
def test_every_loader_takes_a_path(loader: type, pets: Path) -> None:
    train, val, test = loader(str(pets)).load_and_split()
    assert (train.queries.num_rows, val.queries.num_rows, test.queries.num_rows) == (6, 2, 2)


def test_trec_dl_is_there_for_four_years() -> None:
    assert [TRECDLDataLoader(year).source for year in (2019, 2022)] == ["trec-dl-2019", "trec-dl-2022"]
    with pytest.raises(ValueError, match="year 2023: TREC DL passages are there for 2019 to 2022"):
        TRECDLDataLoader(2023)


@pytest.mark.parametrize("name", ["scifact", "beir/scifact", "cqadupstack/android", "robust04"])
def test_beir_sets_are_known_by_name(name: str) -> None:
    assert BEIRDataLoader(name).source == f"beir/{name.removeprefix('beir/')}"


def test_a_set_that_may_not_be_given_away_says_how_to_get_it() -> None:
    with pytest.raises(DataError, match=r"beir/robust04: .*disks45/nocr/trec-robust-2004.*data.options.path"):
        BEIRDataLoader("robust04").load_and_split()


def tiny(relevance: dict[str, int], run: pa.Table | None = None) -> Collection:
    corpus = pa.table([list("abcdef"), [""] * 6, ["A", "B", "C", "A", "E", "F"]], schema=CORPUS)
    judged = pa.table([["q"] * len(relevance), list(relevance), list(relevance.values())], schema=QRELS)
    return Collection("tiny", "train", corpus, pa.table([["q"], ["?"]], schema=QUERIES), judged, run)


def test_judged_negatives_come_first_then_the_run_then_random_ones() -> None:
    run = pa.table([["q", "q"], ["a", "c"], [2.0, 1.0], [1, 2]], schema=RUN)
    triples = DataPreprocessor().create_triples(tiny({"a": 1, "e": 0}, run), num_negatives=4)
    assert [negative for _, _, negative in triples[:2]] == ["E", "C"]
    assert {negative for _, _, negative in triples[2:]} == {"B", "F"}
    assert all(positive == "A" for _, positive, _ in triples)


def test_no_copy_of_a_positive_is_a_negative_and_the_seed_decides() -> None:
    collection = tiny({"a": 1, "b": 2})
    triples = DataPreprocessor(seed=5).create_triples(collection, num_negatives=10)
    assert {negative for _, _, negative in triples} == {"C", "E", "F"}
    assert triples == DataPreprocessor(seed=5).create_triples(collection, num_negatives=10)


def test_a_collection_without_answers_is_refused() -> None:
    with pytest.raises(DataError, match="no query has a relevant document"):
        DataPreprocessor().create_triples(tiny({"a": 0}))
    with pytest.raises(DataError, match="num_negatives 0"):
        DataPreprocessor().create_triples(tiny({"a": 1}), num_negatives=0)


def test_importing_the_rooms_loads_nothing_heavy() -> None:
    code = (
        "import sys, ranker.data, ranker.retrieval, ranker.training\n"
        "assert not {'torch', 'ray', 'faiss', 'transformers', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
