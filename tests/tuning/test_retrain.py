"""Which recipe is taken, how it is settled, and that all queries are learnt from."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ranker.config import Experiment, load_experiment
from ranker.data.catalog import prepare
from ranker.data.stored import open_collection, stored_splits
from ranker.manifest import StageError, read_manifest, run_stage
from ranker.retrieval.index import build_index
from ranker.tuning.chosen import Chosen, choose
from ranker.tuning.recipe import Recipe
from ranker.tuning.retrain import _link_tree, retrain


def leave_model(folder: Path, value: float, dev: str = "d", **config: object) -> Path:
    """A model folder as `fit` leaves it."""
    outcome = {"dev": {"ndcg@10": value}, "backbone": "my/backbone"}

    def make(work: Path) -> dict:
        lines = [{"step": step, "total": 10, "dev": {"ndcg@10": told}} for step, told in ((4, value), (10, 0.1))]
        (work / "training_log.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
        return outcome

    recipe = {"loss": "bce", "learning_rate": 1e-3, "evaluate_every": 2, "epochs": 2.0, "seed": 7, "mix": [], **config}
    return run_stage("train", folder, recipe, {"groups": "g", "dev_groups.parquet": dev}, make).folder


def leave_sweep(folder: Path, overrides: dict, share: float = 1.0) -> Path:
    """A sweep's folder."""

    def make(work: Path) -> dict:
        best = {"best_trial": "t1", "dev": {"ndcg@10": 0.9}, "best_share": share, **Recipe((overrides,)).plain()}
        (work / "best.json").write_text(json.dumps(best))
        (work / "best.yaml").write_text("{}")
        return {}

    return run_stage("tune", folder, {}, {}, make).folder


def test_the_best_of_a_sweep(tmp_path) -> None:
    overrides = {"train.learning_rate": 1e-3, "mine.num_negatives": 3}
    folder = leave_sweep(tmp_path / "sweep", overrides, 0.5)
    for source in (folder, folder / "best.yaml"):
        chosen = choose(source, Experiment())
        assert chosen.recipe == Recipe((overrides,)) and chosen.best_share == 0.5
        assert chosen.mining == {"mine.num_negatives": 3}


def test_the_best_model_below_a_folder(tmp_path) -> None:
    leave_model(tmp_path / "runs/a/model", 0.5)
    best = leave_model(tmp_path / "runs/b/model", 0.8, learning_rate=5e-4)
    leave_model(tmp_path / "runs/b/.sweep.partial/model", 0.9)
    chosen = choose(tmp_path / "runs", Experiment())
    assert str(best) in chosen.told
    assert chosen.recipe.overrides["train.learning_rate"] == 5e-4
    assert chosen.recipe.overrides["train.model"] == "my/backbone" and chosen.recipe.overrides["seed"] == 7
    assert chosen.best_share == 0.4, "its weights are those of step 4 of 10"
    assert choose(tmp_path / "runs/a/model", Experiment()).recipe.overrides["train.learning_rate"] == 1e-3
    leave_model(tmp_path / "runs/c/model", 0.9, dev="other")
    with pytest.raises(StageError, match="measured on 2 different dev sets"):
        choose(tmp_path / "runs", Experiment())


def test_where_there_is_nothing_to_take(tmp_path) -> None:
    with pytest.raises(StageError, match="run `ranker tune` first"):
        choose(tmp_path / "none", Experiment())
    with pytest.raises(StageError, match="no sweep and no trained model"):
        choose(tmp_path, Experiment())


def test_a_settled_recipe_trains_as_long_as_led_to_the_best_weights() -> None:
    base = Experiment().with_overrides({"train.epochs": 2.0, "train.max_steps": 30, "train.evaluate_every": 5})
    chosen = Chosen(Recipe(({"train.learning_rate": 1e-3, "mine.range_min": 2},)), 0.4, "", "")
    (settled,) = chosen.settled(base).segments
    assert settled == {
        "train.learning_rate": 1e-3, "train.evaluate_every": None, "train.patience": None, "train.keep_best": 1,
        "train.epochs": 0.8, "train.max_steps": 12,
    }  # fmt: skip


def test_what_was_linked_before_a_kill_is_taken_as_it_is(tmp_path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "part-0.parquet").write_text("cats")
    for _ in range(2):
        _link_tree(tmp_path / "corpus", tmp_path / "work" / "corpus")
    assert [(file.name, file.read_text()) for file in (tmp_path / "work" / "corpus").iterdir()] == [
        ("part-0.parquet", "cats")
    ]
    (tmp_path / "other" / ".corpus.copy").mkdir(parents=True)  # of a kill in the middle
    (tmp_path / "other" / ".corpus.copy" / "part-0.parquet").write_text("ca")
    _link_tree(tmp_path / "corpus", tmp_path / "other" / "corpus")
    assert [file.read_text() for file in (tmp_path / "other").rglob("*.parquet")] == ["cats"]


@pytest.fixture
def fitted(monkeypatch) -> list[Experiment]:
    """The experiments that a stand-in for training was given."""
    seen: list[Experiment] = []

    def fit(config: Experiment, callbacks: object = ()) -> object:
        seen.append(config)
        return run_stage("train", config.folder("train"), {}, {}, lambda work: {"dev": {}, "pairs": 1})

    monkeypatch.setattr("ranker.training.trainer.fit", fit)
    return seen


def test_named_groups_are_joined_with_their_dev_groups(mined, tmp_path, tiny_backbone, fitted) -> None:
    sweep = leave_sweep(tmp_path / "sweep", {"train.learning_rate": 1e-3})
    config = Experiment().with_overrides({
        "output_dir": str(tmp_path / "run"), "train.groups": str(mined / "groups.parquet"),
        "train.model": tiny_backbone,
    })  # fmt: skip
    done = retrain(config, sweep)
    assert done.folder == tmp_path / "run/retrained/model" and retrain(config, sweep).skipped
    assert pq.read_table(Path(fitted[0].train.groups) / "groups.parquet").num_rows == 6 + 2
    assert fitted[0].train.learning_rate == 1e-3 and len(fitted) == 1
    assert load_experiment(done.folder / "experiment.yaml").train.learning_rate == 1e-3


@pytest.mark.parametrize("keep_test", [False, True])
def test_all_queries_are_learnt_from(
    pets, tmp_path, tiny_backbone, tiny_retriever, encode_here, fitted, ray_cluster, keep_test
) -> None:
    sweep = leave_sweep(tmp_path / "sweep", {"mine.num_negatives": 2, "train.learning_rate": 1e-3})
    config = Experiment().with_overrides({
        "output_dir": str(tmp_path / "run"), "data.source": str(pets), "index.model": tiny_retriever,
        "index.num_workers": 1, "mine.num_negatives": 1, "mine.relative_margin": None, "train.model": tiny_backbone,
    })  # fmt: skip
    prepare(config)
    build_index(config)
    encoded = len(encode_here.asked)
    retrain(config, sweep, keep_test=keep_test)
    folder = tmp_path / "run/retrained"
    assert stored_splits(folder / "data") == (["test", "train"] if keep_test else ["train"])
    assert open_collection(folder / "data", "train").queries.num_rows == (8 if keep_test else 10)
    groups = pq.read_table(fitted[0].folder("mine") / "groups.parquet")
    assert groups.num_rows == (8 if keep_test else 10)
    assert {len(documents) for documents in groups["documents"].to_pylist()} == {3}, "the sweep's two negatives"
    assert len(encode_here.asked) == encoded, "nothing is embedded again"
    assert read_manifest(folder / "model").outcome["recipe"].startswith("trial t1 of the sweep")
    assert fitted[0].train.evaluate_every is None and fitted[0].train.learning_rate == 1e-3
