"""One cluster for several stages, or one for each."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ranker import session
from ranker.cli import stages
from ranker.config import Experiment, RayConfig
from ranker.manifest import Done, run_stage
from ranker.session import connected, one_cluster


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens to stand-ins for local clusters, in order; Ray is connected while one of them is open."""
    happened: list[str] = []

    @contextmanager
    def local(config: RayConfig) -> Iterator[None]:
        happened.append("start")
        try:
            yield
        finally:
            happened.append("stop")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(session, "_local", local)
    monkeypatch.setattr("ray.is_initialized", lambda: happened.count("start") > happened.count("stop"))
    return happened


def test_alone_a_stage_has_a_cluster_of_its_own(clusters: list[str]) -> None:
    for _ in range(2):
        with connected(RayConfig()):
            pass
    assert clusters == ["start", "stop"] * 2


def test_in_one_block_the_first_stage_starts_it_and_the_last_leaves_it_open(clusters: list[str]) -> None:
    with one_cluster():
        assert clusters == []
        with one_cluster(), connected(RayConfig()):
            pass
        with connected(RayConfig()):
            clusters.append("second stage")
        clusters.append("a stage without Ray")
    assert clusters == ["start", "second stage", "a stage without Ray", "stop"]
    with connected(RayConfig()):
        pass
    assert clusters[-2:] == ["start", "stop"], "after the block, each for itself again"


def test_where_no_stage_needs_ray_nothing_starts(clusters: list[str]) -> None:
    with one_cluster():
        pass
    assert clusters == []


def test_a_stage_that_fails_leaves_no_cluster(clusters: list[str]) -> None:
    with pytest.raises(ValueError, match="in the stage"), one_cluster(), connected(RayConfig()):
        raise ValueError("in the stage")
    assert clusters == ["start", "stop"]


def test_an_open_connection_is_left_open(clusters: list[str]) -> None:
    clusters.append("start")
    with one_cluster(), connected(RayConfig()):
        pass
    assert clusters == ["start"]


@pytest.mark.parametrize("walk", [lambda config: stages.run("mine", config), stages.run_all], ids=["run", "run_all"])
def test_a_walk_through_several_stages_has_one_cluster(
    walk: Callable[[Experiment], object], clusters: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_door(stage: str) -> Callable[[Experiment], Done]:
        def door(config: Experiment) -> Done:
            with connected(config.ray):
                clusters.append(stage)
            return run_stage(stage, tmp_path / stage, {}, {}, lambda work: {})

        return door

    monkeypatch.setattr(stages, "open_door", open_door)
    walk(Experiment())
    assert {"data", "index", "mine"} <= set(clusters)
    assert (clusters.count("start"), clusters.count("stop"), clusters[-1]) == (1, 1, "stop")


def test_a_local_cluster_that_starts_too_slowly_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def init(fails: int, message: str) -> Callable[..., None]:
        def start(**options: object) -> None:
            folders.append(Path(str(options["_temp_dir"])))
            if len(folders) <= fails:
                raise RuntimeError(message)

        return start

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    slow = "The current node timed out during startup. This could happen"
    monkeypatch.setattr("ray.init", init(2, slow))
    with session.connected(RayConfig()):
        assert len(set(folders)) == 3 and all(folder.is_dir() for folder in folders)
    assert not any(folder.exists() for folder in folders)
    for message, tries in ((slow, session.ATTEMPTS), ("no such option", 1)):
        folders.clear()
        monkeypatch.setattr("ray.init", init(9, message))
        with pytest.raises(RuntimeError, match=message), session.connected(RayConfig()):
            pass
        assert len(folders) == tries


def test_no_process_of_a_local_cluster_looks_out_for_notices(ray_cluster) -> None:
    from ray.train.v2._internal.constants import ENABLE_PREEMPTION_WATCHER_ENV_VAR as NAME

    def value() -> str | None:
        import os

        return os.environ.get(NAME)

    assert ray_cluster.get(ray_cluster.remote(num_cpus=0)(value).remote()) == "0"


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process has every test")
def test_the_tests_of_a_file_share_a_process(request) -> None:
    assert request.node.nodeid.endswith(f"@{request.node.path}")
