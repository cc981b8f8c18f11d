import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.data.catalog import load_splits
from ranker.data.errors import DataError

PAIRS = [{"anchor": "who barks", "positive": "a dog"}, {"anchor": "who purrs", "positive": "a cat"}]


def collection(folder: Path, qrels: str = "qrels") -> Path:
    """A collection as MTEB keeps it: a configuration each for documents, queries and judgements."""
    rows = {
        "corpus": [{"_id": "2020-01-01", "title": "", "text": "a dog"}, {"_id": "007", "title": "T", "text": "a cat"}],
        "queries": [{"_id": "01", "text": "who barks"}],
    }
    yaml = ["---", "configs:"]
    for name, records in rows.items():
        (folder / name).mkdir(parents=True)
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / name / "train-00000-of-00001.jsonl").write_text(text)
        yaml += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {name}/train-*"]
    if qrels:
        (folder / "data").mkdir()
        table = pa.table({"query-id": ["01"], "corpus-id": ["2020-01-01"], "score": [2]})
        pq.write_table(table, folder / "data" / "test-00000-of-00001.parquet")
        yaml += [f"- config_name: {qrels}", "  data_files:", "  - split: test", "    path: data/test-*"]
    (folder / "README.md").write_text("\n".join([*yaml, "---", "# A data set"]))
    return folder


def cached(home: Path, name: str, made: Path) -> None:
    """Move a folder to where the hub's cache would have it."""
    repository = home / f"datasets--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd")
    (repository / "snapshots").mkdir()
    made.rename(repository / "snapshots" / "0123abcd")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


@pytest.mark.parametrize("qrels", ["qrels", "default"])
def test_a_snapshot_folder_and_the_hub_cache_give_the_same_collection(
    qrels: str, tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = load_splits(str(collection(tmp_path / "made", qrels)))
    test = found.collection("test")
    assert test.corpus["doc_id"].to_pylist() == ["2020-01-01", "007"], "neither a date nor a number"
    assert test.qrels.to_pylist() == [{"query_id": "01", "doc_id": "2020-01-01", "relevance": 2}]
    cached(hub, "some/collection", tmp_path / "made")
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(hub), raising=False)
    assert load_splits("hf:some/collection").collection("test").corpus == test.corpus


def test_judgements_in_a_repository_of_their_own_are_found_beside_it(tmp_path: Path) -> None:
    made = collection(tmp_path / "scifact", "")
    beside = tmp_path / "scifact-qrels"
    beside.mkdir()
    (beside / "test.tsv").write_text("query-id\tcorpus-id\tscore\n01\t007\t1\n")
    (beside / "train.tsv").write_text("query-id\tcorpus-id\tscore\n01\t2020-01-01\t1\n")
    found = load_splits(str(made))
    assert sorted(found.qrels) == ["test", "train"] and found.qrels["test"]["doc_id"].to_pylist() == ["007"]


def examples(folder: Path, *configurations: str) -> Path:
    yaml = ["---", "configs:"]
    for name in configurations:
        (folder / name).mkdir(parents=True)
        for split in ("train", "validation"):
            pq.write_table(pa.Table.from_pylist(PAIRS), folder / name / f"{split}-00000-of-00001.parquet")
        yaml += [f"- config_name: {name}", "  data_files:"]
        for split in ("train", "validation"):
            yaml += [f"  - split: {split}", f"    path: {name}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*yaml, "---"]))
    return folder


def test_examples_of_a_configuration_become_a_collection(tmp_path: Path) -> None:
    made = examples(tmp_path / "pairs", "pair", "triplet")
    with pytest.raises(DataError, match=r"has the configurations \['pair', 'triplet'\]; choose one"):
        load_splits(str(made), format="hub")
    with pytest.raises(DataError, match=r"no configuration 'pairs'; did you mean 'pair'"):
        load_splits(str(made), format="hub", config="pairs")
    found = load_splits(str(made), format="hub", config="pair")
    assert sorted(found.qrels) == ["dev", "train"]
    assert found.queries["text"].to_pylist() == ["who barks", "who purrs"]
    assert found.corpus.table()["text"].to_pylist() == ["a dog", "a cat"]


def test_what_is_not_there_says_where_it_was_looked_for_and_how_to_get_it(hub: Path) -> None:
    with pytest.raises(DataError) as error:
        load_splits("hf:nobody/nothing")
    for part in ("hf:nobody/nothing is not in", str(hub), "hf download --repo-type dataset nobody/nothing",
                 "HF_HUB_CACHE", "local snapshot folder"):  # fmt: skip
        assert part in str(error.value), part


def by_split(folder: Path, prefix: str = "", texts: tuple[str, str] = ("a dog", "a dog")) -> Path:
    """A collection as MTEB writes it now: documents, queries and judgements for each split on their own."""
    yaml = ["---", "configs:"]
    for part in ("corpus", "queries", "qrels"):
        yaml += [f"- config_name: {prefix}{part}", "  data_files:"]
        for split, text in zip(("dev", "test"), texts, strict=True):
            rows = {
                "corpus": {"id": ["007"], "title": [""], "text": [text]},
                "queries": {"id": ["01"], "text": ["who barks"]},
                "qrels": {"query-id": ["01"], "corpus-id": ["007"], "score": [1]},
            }
            (folder / f"{prefix}{part}").mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(rows[part]), folder / f"{prefix}{part}" / f"{split}-00000-of-00001.parquet")
            yaml += [f"  - split: {split}", f"    path: {prefix}{part}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*yaml, "---"]))
    return folder


def test_a_corpus_for_each_split_may_hold_the_same_documents_and_no_others_of_their_ids(tmp_path: Path) -> None:
    found = load_splits(str(by_split(tmp_path / "same")))
    assert found.corpus.table().to_pylist() == [{"doc_id": "007", "title": "", "text": "a dog"}]
    assert sorted(found.qrels) == ["dev", "test"] and found.queries.num_rows == 1
    with pytest.raises(DataError, match=r"1 mistake\n.*document '007' had another text before: 'a cat'; ids must"):
        load_splits(str(by_split(tmp_path / "other", texts=("a dog", "a cat"))))


def test_a_language_is_a_configuration(tmp_path: Path) -> None:
    folder = by_split(tmp_path / "languages", "de-")
    assert load_splits(str(folder), config="de").collection("test").qrels.num_rows == 1
    (folder / "README.md").write_text((folder / "README.md").read_text().replace("de-", "ar-", 1))
    with pytest.raises(DataError, match="choose one with"):
        load_splits(str(folder))


def test_a_snapshot_that_was_cut_off_names_the_files_that_are_missing(tmp_path: Path, hub: Path) -> None:
    made = examples(tmp_path / "pairs", "pair")
    (made / "pair" / "train-00000-of-00001.parquet").rename(made / "pair" / "train-00001-of-00003.parquet")
    with pytest.raises(DataError) as error:
        load_splits(str(made))
    assert "2 files of the set are missing: pair/train-00000-of-00003.parquet, pair/train-00002-of-00003" in str(
        error.value
    )
    cached(hub, "some/pairs", made)
    with pytest.raises(DataError, match=r"hf download --repo-type dataset some/pairs"):
        load_splits("hf:some/pairs")


def test_a_train_split_with_grades_stays_one_and_a_list_of_relevant_documents_is_for_measuring(tmp_path: Path) -> None:
    for name, columns in (("graded", {"score": [1]}), ("nano", {})):
        made = collection(tmp_path / name)
        (made / "data" / "test-00000-of-00001.parquet").unlink()
        table = pa.table({"query-id": ["01"], "corpus-id": ["007"], **columns})
        pq.write_table(table, made / "data" / "train-00000-of-00001.parquet")
        readme = (made / "README.md").read_text()
        readme = readme.replace("split: test\n    path: data/test-*", "split: train\n    path: data/train-*")
        (made / "README.md").write_text(readme)
    assert list(load_splits(str(tmp_path / "graded")).qrels) == ["train"]
    assert list(load_splits(str(tmp_path / "nano")).qrels) == ["test"]


def test_the_encoding_of_a_snapshot_may_be_said(tmp_path: Path) -> None:
    made = collection(tmp_path / "made")
    corpus = made / "corpus" / "train-00000-of-00001.jsonl"
    corpus.write_bytes(corpus.read_text().replace("a cat", "un café").encode("latin-1"))
    with pytest.raises(DataError, match="encoding=latin-1"):
        load_splits(str(made))
    found = load_splits(str(made), encoding="latin-1").corpus.table()
    assert found["text"].to_pylist() == ["a dog", "un café"]
