import shutil
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
from ranker.data.catalog import open_source
from ranker.data.splits import Splits
from ranker.data.store import store_source
from ranker.data.stored import save_beside_corpus
from ranker.schemas import CORPUS, ID_TRIPLES, QRELS, QUERIES, RUN, Collection, StoredCorpus


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


@pytest.mark.parametrize("name", ["quora", "beir/scifact"])
def test_a_folder_that_is_called_like_a_known_set_is_the_folder(
    name: str, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pets, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for loader in (CustomDataLoader(name), BEIRDataLoader(name), BEIRDataLoader(Path(name))):
        assert loader.load_and_split()[0].queries.num_rows == 6
    with pytest.raises(DataError, match=r"beir/trec-covid: no such file, folder or zip"):
        CustomDataLoader("beir/trec-covid").load_and_split()


def test_splits_by_other_usual_names_are_not_held_out_again(pets: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(pets, tmp_path / "pets")
    (copy / "qrels" / "dev.tsv").rename(copy / "qrels" / "validation.tsv")
    (copy / "qrels" / "test.tsv").rename(copy / "qrels" / "testing.tsv")
    loaded = CustomDataLoader(copy).load_and_split()
    assert [(each.split, each.queries.num_rows) for each in loaded] == [("train", 6), ("dev", 2), ("test", 2)]
    assert [c.queries for c in loaded] == [c.queries for c in CustomDataLoader(pets).load_and_split()]


def test_train_triples_without_train_judgements_are_a_train_collection(pets: Path, tmp_path: Path) -> None:
    data = open_source(str(pets))
    with_triples = store_source(data, tmp_path / "work")
    train = with_triples.collection("train").queries["query_id"][0].as_py()
    triples = pa.table([[train], ["d1"], ["d2"]], schema=ID_TRIPLES)
    judged = {name: table for name, table in with_triples.qrels.items() if name != "train"}
    folder = tmp_path / "stored"
    folder.mkdir()
    (tmp_path / "work" / "corpus").rename(folder / "corpus")
    stored = Splits("pets", StoredCorpus(folder / "corpus"), with_triples.queries, judged, triples={"train": triples})
    save_beside_corpus(folder, stored)
    found, _, test = CustomDataLoader(folder).load_and_split()
    assert found.triples is not None and found.triples.num_rows == 1
    assert found.queries["query_id"].to_pylist() == [train] and found.qrels.num_rows == 0
    assert test.queries.num_rows == 2


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


def test_a_copy_of_quora_tells_its_form_by_itself(tmp_path: Path) -> None:
    rows = [f"{n}\t{2 * n}\t{2 * n + 1}\tquestion {n}\tother {n}\t{n % 2}\n" for n in range(40)]
    path = tmp_path / "quora_duplicate_questions.tsv"
    path.write_text("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n" + "".join(rows))
    train, val, test = QuoraDataLoader(str(path)).load_and_split()
    assert (train.queries.num_rows, val.queries.num_rows, test.queries.num_rows) == (32, 4, 4)
    assert train.documents.lookup(["1"])["text"].to_pylist() == ["other 0"]
    with pytest.raises(DataError, match="holds the form 'pairs', not 'retrieval'"):
        QuoraDataLoader(str(path), form="retrieval").load_and_split()
