import shutil
from pathlib import Path

import pytest

from ranker.data.catalog import load_splits
from ranker.data.errors import DataError
from ranker.data.paths import open_path


def test_a_folder_around_a_collection_is_looked_through(pets: Path, tmp_path: Path) -> None:
    outer = tmp_path / "download" / "unpacked" / "pets"
    shutil.copytree(pets, outer)
    plain = load_splits(str(pets))
    zipped = shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "download")
    for source in (str(tmp_path / "download"), zipped):
        found = load_splits(source)
        assert found.corpus.table() == plain.corpus.table() and sorted(found.qrels) == sorted(plain.qrels)
    assert load_splits(str(tmp_path / "download"), format="beir").name == "pets"


def test_a_folder_that_names_a_split_stays(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "some.jsonl").write_text('{"query": "who sings", "pos": ["canaries"], "neg": ["owls"]}\n')
    assert list(load_splits(str(tmp_path)).qrels) == ["dev"]


def test_an_unknown_format_names_the_nearest(pets: Path) -> None:
    with pytest.raises(DataError, match="unknown format 'bier'; did you mean 'beir'"):
        open_path(pets, format="bier")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train.csv", "what is this?,that is it.\n", "its first line .* is no header; write the names of the columns"),
        ("train.jsonl", "", "train.jsonl: holds no record"),
        ("train.jsonl", '{"text": "canaries", "query": "who sings"}\n', "column 'text' stands before 'query'"),
    ],
)
def test_one_file_that_nothing_recognises_says_why(name: str, content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"no known format in {name} \(.*{reason}"):
        open_path(tmp_path / name)


def test_an_option_that_the_format_of_the_files_has_no_place_for_is_refused(pets: Path) -> None:
    with pytest.raises(DataError, match=r"is in the format beir, which has no options; leave columns out"):
        load_splits(str(pets), columns={"query": "question"})
    with pytest.raises(DataError, match=r"is in the format beir, .* leave max_triples out"):
        load_splits("msmarco", path=str(pets), max_triples=7)


def test_what_is_known_of_a_data_set_is_known_of_its_copy(pets: Path) -> None:
    assert load_splits("trec-dl-2020", path=str(pets)).collection("test").relevance_level == 2
    assert load_splits("msmarco", path=str(pets)).collection("test").relevance_level == 2, "its test is graded"
    assert load_splits("beir/scifact", path=str(pets)).collection("test").relevance_level == 1
    with pytest.raises(DataError, match="holds the form 'retrieval', not 'pairs'"):
        load_splits("quora", path=str(pets), form="pairs")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"allow_missing": "false"}, "allow_missing: Input should be a valid boolean, not 'false'"),
        ({"max_documents": "10"}, "max_documents: Input should be a valid integer, not '10'"),
        ({"max_queries": -1}, "max_queries -1 must be at least 1"),
        ({"encoding": 8}, "encoding: Input should be a valid string, not 8"),
    ],
)
def test_values_are_checked_before_anything_is_read(options: dict[str, object], said: str, pets: Path) -> None:
    with pytest.raises(DataError, match=said):
        load_splits(str(pets), **options)
