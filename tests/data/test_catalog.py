import inspect
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ranker.config import Experiment
from ranker.data import identity
from ranker.data.catalog import DATASETS, load, load_splits, open_collection, prepare, save_collection
from ranker.data.errors import DataError
from ranker.data.paths import known_formats
from ranker.data.splits import HELD_OUT_SHARE, Splits, hold_out_missing, rename_splits
from ranker.manifest import StageError, read_manifest
from ranker.schemas import CORPUS, QRELS, QUERIES, SchemaError


def experiment(tmp_path: Path, source: Path | str, **data: Any) -> Experiment:
    return Experiment(output_dir=str(tmp_path / "run"), data={"source": str(source), **data})


def test_prepare_stores_what_the_source_holds_and_says_how_much(pets: Path, tmp_path: Path) -> None:
    config = experiment(tmp_path, pets)
    done = prepare(config)
    assert done.outcome["documents"] == 10
    assert done.outcome["queries"] == done.outcome["judgements"] == {"train": 6, "dev": 2, "test": 2}
    names = sorted(str(file.relative_to(done.folder)) for file in done.folder.rglob("*.*"))
    assert names == [
        "collection.json", "corpus/part-00000.parquet", "manifest.json", "qrels/dev.parquet", "qrels/test.parquet",
        "qrels/train.parquet", "queries.parquet",
    ]  # fmt: skip
    stored, source = open_collection(done.folder, "test"), load(str(pets), "test")
    assert stored.corpus == source.corpus and stored.queries == source.queries and stored.qrels == source.qrels


def test_the_same_source_is_not_read_twice_but_a_changed_one_is(pets: Path, tmp_path: Path) -> None:
    import shutil

    mine = tmp_path / "pets"
    shutil.copytree(pets, mine)
    config = experiment(tmp_path, mine)
    assert not prepare(config).skipped
    assert prepare(config).skipped
    with (mine / "corpus.jsonl").open("a") as stream:
        stream.write('{"_id": "d11", "text": "Newts swim."}\n')
    again = prepare(config)
    assert not again.skipped and again.outcome["documents"] == 11


def test_a_broken_source_leaves_nothing_that_looks_whole(pets: Path, tmp_path: Path) -> None:
    import shutil

    mine = tmp_path / "pets"
    shutil.copytree(pets, mine)
    (mine / "corpus.jsonl").write_text("{\n")
    config = experiment(tmp_path, mine)
    with pytest.raises(DataError, match=r"corpus.jsonl, line 1"):
        prepare(config)
    with pytest.raises(StageError):
        read_manifest(config.folder("data"))


def test_other_split_names_are_mapped_and_missing_ones_are_held_out(pets: Path, tmp_path: Path) -> None:
    config = experiment(tmp_path, pets, dev_split=None, test_split="dev")
    done = prepare(config)
    assert done.outcome["held_out"] == ["dev"]
    assert done.outcome["queries"] == {"train": 5, "dev": 1, "test": 2}
    assert open_collection(done.folder, "test").queries["query_id"].to_pylist() == ["q7", "q8"]


def queries(count: int) -> Splits:
    ids = [f"q{n}" for n in range(count)]
    return Splits(
        "made",
        pa.table([ids, [""] * count, ids], schema=CORPUS),
        pa.table([ids, ids], schema=QUERIES),
        {"train": pa.table([ids, ids, [1] * count], schema=QRELS)},
    )


def test_held_out_splits_are_seeded_tenths_that_do_not_overlap() -> None:
    cut, held = hold_out_missing(queries(100), seed=1)
    sizes = {split: table.num_rows for split, table in cut.qrels.items()}
    assert held == ["dev", "test"] and sizes == {"train": 80, "dev": 10, "test": 10} and HELD_OUT_SHARE == 0.1
    ids = [set(table["query_id"].to_pylist()) for table in cut.qrels.values()]
    assert len(set.union(*ids)) == 100
    assert hold_out_missing(queries(100), seed=1)[0].qrels == cut.qrels
    assert hold_out_missing(queries(100), seed=2)[0].qrels != cut.qrels


def test_a_source_without_any_of_the_wanted_splits_says_which_it_has() -> None:
    with pytest.raises(DataError, match=r"has the splits \['train'\], and none of \['tests'\]"):
        rename_splits(queries(3), {"test": "tests"})
    with pytest.raises(DataError, match=r"no split 'trian'; did you mean 'train'\?"):
        queries(3).collection("trian")


def test_options_are_checked_against_the_loader_all_at_once(pets: Path) -> None:
    with pytest.raises(DataError) as error:
        load(str(pets), max_document=3, seeds=1)
    assert "max_document: unknown option; did you mean 'max_documents'" in str(error.value)
    assert "seeds: unknown option; did you mean 'seed'" in str(error.value)
    with pytest.raises(DataError, match=r"max_documents: .*integer.*not 'many'"):
        load(str(pets), max_documents="many")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("pydoc", "did you mean 'pydocs'"),
        ("./nowhere", "no such file, folder or zip"),
        ("nowhere.zip", "no such file, folder or zip"),
        ("ir_datasets:beir/scifax", "no data set 'beir/scifax'"),
    ],
)
def test_an_unknown_source_says_what_is_known(source: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load(source)


def test_a_file_of_no_known_format_says_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("hello")
    with pytest.raises(DataError, match=r"data.txt: no known format in data.txt") as error:
        load(str(tmp_path / "data.txt"))
    for name in known_formats():
        assert f"\n  {name}: " in str(error.value)


def test_the_fingerprint_of_pydocs_follows_the_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        def __init__(self, name: str, version: str) -> None:
            self.metadata, self.version = {"Name": name}, version

    def fingerprint(*packages: Package) -> str:
        monkeypatch.setattr(identity, "distributions", lambda: list(packages))
        return identity.source_fingerprint("pydocs", {})

    numpy, torch = Package("numpy", "2"), Package("torch", "2")
    assert fingerprint(numpy, torch) == fingerprint(torch, numpy)
    assert fingerprint(numpy, torch) != fingerprint(numpy, Package("torch", "3"))


def test_pydocs_of_a_folder_becomes_splits(tmp_path: Path) -> None:
    found = load_splits(
        "pydocs",
        roots=[str(Path(inspect.getfile(Experiment)).parent), str(Path(pa.__file__).parent)],
        max_documents=200,
    )
    assert 0 < found.corpus.num_rows <= 200
    assert set(found.qrels) <= {"train", "dev", "test"}
    assert sum(table.num_rows for table in found.qrels.values()) == found.queries.num_rows


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_data_set_takes_keywords_only_and_is_documented(name: str) -> None:
    parameters = inspect.signature(DATASETS[name]).parameters.values()
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters)
    assert DATASETS[name].__doc__


@pytest.mark.parametrize("name", sorted(name for name in DATASETS if name != "pydocs"))
def test_every_fetched_data_set_reads_a_copy_in_beir_layout(name: str, pets: Path) -> None:
    found = load_splits(name, path=str(pets))
    assert found.corpus.num_rows == 10 and "test" in found.qrels


def test_save_refuses_other_tables(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="missing columns"):
        save_collection(tmp_path, pa.table({"id": ["1"]}), QUERIES.empty_table(), {})
