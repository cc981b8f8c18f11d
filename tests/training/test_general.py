"""General text in a mix, by name: made once beside the experiment, as a sweep's trials and a training read it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.config import DataConfig, Experiment
from ranker.schemas import GROUPS
from ranker.training import general
from ranker.training.batches import SCORES
from ranker.training.measure import has_dev


@pytest.fixture
def experiment(pets: Path, tiny_retriever: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """One that knows a small collection as general text."""
    monkeypatch.setitem(general.GENERAL, "pydocs", DataConfig(source=str(pets)))
    monkeypatch.setattr(general, "MAX_LENGTH", 32)  # the tiny encoder has no more positions than 64
    changes = {"output_dir": str(tmp_path / "runs"), "index.model": tiny_retriever, "index.num_workers": 1}
    return Experiment().with_overrides(changes)


def test_a_path_is_a_path_and_comes_before_the_name(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert general.mix_groups("runs/quickstart/mine", experiment) == "runs/quickstart/mine"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pydocs").mkdir()
    assert general.mix_groups("pydocs", experiment) == "pydocs"


def test_general_text_is_read_as_the_experiment_reads_its_own(tmp_path: Path) -> None:
    changes = {"output_dir": str(tmp_path), "seed": 5, "index.model": "some/encoder", "index.factory": "IVF4,Flat"}
    found = general.general_experiment("pydocs", Experiment().with_overrides({**changes, "index.num_workers": 3}))
    assert found.folder("mine") == tmp_path / "general" / "pydocs" / "mine"
    assert (found.seed, found.index.model, found.index.num_workers) == (5, "some/encoder", 3)
    assert (found.index.factory, found.data.source) == ("Flat", "pydocs")


@pytest.mark.usefixtures("ray_cluster")
def test_general_text_is_mined_once_and_carries_scores(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    folder = Path(general.mix_groups("pydocs", experiment))
    groups = pq.read_table(folder / "groups.parquet")
    assert groups.num_rows and groups.select(GROUPS.names).cast(GROUPS)
    assert pa.compute.all(pa.compute.is_valid(groups[SCORES])).as_py()
    assert has_dev(folder)
    monkeypatch.setattr("ranker.training.mining._mine_train", lambda *_: made.append(1))
    assert Path(general.mix_groups("pydocs", experiment)) == folder and not made
