"""Sweeps whose trials really train: the best can be repeated, and nothing is left behind in the cluster."""

import os
import time

import psutil
import pytest
from safetensors.torch import load_file

from ranker.config import Experiment, load_experiment
from ranker.manifest import Done, read_manifest
from ranker.training.trainer import fit
from ranker.tuning.sweep import sweep

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(make_experiment, tmp_path_factory) -> Experiment:
    return make_experiment(tmp_path_factory.mktemp("trials"))


@pytest.fixture(scope="module")
def swept(config, ray_cluster) -> Done:
    """Two trials, and the best and the default twice more with other seeds."""
    return sweep(config.with_overrides({"tune.num_trials": 2, "tune.num_seeds": 2}))


@pytest.mark.timeout(900)
def test_trials_of_a_tiny_model_and_the_best_can_be_repeated(swept) -> None:
    assert swept.outcome["num_trials"] == 2 and swept.outcome["num_failed"] == 0
    again = fit(load_experiment(swept.folder / "best.yaml"))
    assert again.manifest.key == read_manifest(swept.folder / "best").key
    assert again.outcome["dev"] == pytest.approx(swept.outcome["dev"], abs=1e-6)
    one, other = (load_file(folder / "model.safetensors") for folder in (swept.folder / "best", again.folder))
    assert all((one[name] == other[name]).all() for name in one), "bit for bit"
    assert [(told["who"], told["seed"]) for told in swept.outcome["repeats"]] == [
        ("default", 14), ("best", 14), ("default", 15), ("best", 15),
    ]  # fmt: skip
    assert set(swept.outcome["gain"]) == {"dev"}, "no data lie beside the groups, so that nothing is told of test"


@pytest.mark.timeout(5400)
def test_trials_leave_no_actor_no_placement_group_and_no_file_handle(config, swept, ray_cluster, tmp_path) -> None:
    from ray.util import placement_group_table
    from ray.util.state import list_actors

    # Fifty take long: RANKER_TEST_TRIALS=50, or `python benchmarks/tuning.py --leaks 50`.
    number = int(os.environ.get("RANKER_TEST_TRIALS", "6"))

    def alive() -> int:
        address = ray_cluster.get_runtime_context().gcs_address
        return len(list_actors(address=address, filters=[("state", "=", "ALIVE")], limit=10_000))

    def groups() -> list[str]:
        return [told["state"] for told in placement_group_table().values() if told["state"] != "REMOVED"]

    def leaked() -> int:
        return psutil.Process().num_fds() - handles

    # What Ray starts once for all sweeps is there after the first, `swept`.
    time.sleep(5)
    actors, handles = alive(), psutil.Process().num_fds()
    done = sweep(config.with_overrides({
        "output_dir": str(tmp_path), "tune.num_trials": number, "tune.scheduler": "asha", "tune.keep_best": 1,
        "train.epochs": 100, "train.max_steps": 4, "train.evaluate_every": 1,
    }))  # fmt: skip
    assert done.outcome["num_trials"] == number and done.outcome["num_failed"] == 0
    deadline = time.monotonic() + 60
    while (groups() or alive() > actors or leaked() > number / 2) and time.monotonic() < deadline:
        time.sleep(1)  # an actor that is told to end needs a moment
    assert groups() == [] and alive() <= actors
    assert leaked() <= number / 2, "less than one a trial"
    assert sorted(path.name for path in done.folder.iterdir()) == [
        "best", "best.json", "best.yaml", "manifest.json", "report.html", "trials.parquet",
    ]  # fmt: skip
