import errno
import json
from pathlib import Path

import pytest
from filelock import FileLock

from ranker.manifest import MANIFEST, StageError, fingerprint, fingerprint_path, read_manifest, run_stage


def stage(folder: Path, make, seed: int = 1):
    return run_stage("toy", folder, {"seed": seed}, {"data": "abc"}, make)


def write(work: Path) -> dict[str, int]:
    (work / "table.txt").write_text("whole")
    return {"rows": 1}


def test_a_stage_runs_once_for_the_same_config_and_inputs(tmp_path: Path) -> None:
    calls = []
    first = stage(tmp_path / "toy", lambda work: calls.append(1) or write(work))
    second = stage(tmp_path / "toy", lambda work: calls.append(2) or write(work))
    assert (first.skipped, second.skipped, calls) == (False, True, [1])
    assert second.outcome == {"rows": 1}
    assert read_manifest(tmp_path / "toy").config == {"seed": 1}


def test_other_inputs_replace_the_folder_only_when_they_are_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage(tmp_path / "toy", write)

    def fails(work: Path) -> dict[str, int]:
        (work / "table.txt").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        stage(tmp_path / "toy", fails, seed=2)
    assert (tmp_path / "toy" / "table.txt").read_text() == "whole"
    assert read_manifest(tmp_path / "toy").config == {"seed": 1}
    caplog.set_level("INFO")
    assert stage(tmp_path / "toy", write, seed=2).outcome == {"rows": 1}
    assert "toy: running again, since seed changed" in caplog.text
    assert read_manifest(tmp_path / "toy").config == {"seed": 2}


def test_an_interrupted_stage_looks_unfinished_and_goes_on(tmp_path: Path) -> None:
    def interrupted(work: Path) -> dict[str, int]:
        (work / "part-0").write_text("kept")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "toy", interrupted)
    assert not (tmp_path / "toy").exists()
    with pytest.raises(StageError, match=r"unfinished run"):
        read_manifest(tmp_path / "toy")
    seen = []
    stage(tmp_path / "toy", lambda work: seen.append((work / "part-0").read_text()) or write(work))
    assert seen == ["kept"]


def test_an_interrupted_run_of_other_inputs_is_not_continued(tmp_path: Path) -> None:
    def interrupted(work: Path) -> dict[str, int]:
        (work / "part-0").write_text("of seed 1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(tmp_path / "toy", interrupted)
    stage(tmp_path / "toy", lambda work: {"left": [file.name for file in work.iterdir()]}, seed=2)
    assert read_manifest(tmp_path / "toy").outcome == {"left": [".key"]}


def test_stopped_between_the_two_renames_nothing_is_lost(tmp_path: Path) -> None:
    done = stage(tmp_path / "toy", write)
    done.folder.rename(tmp_path / ".toy.previous")
    assert stage(tmp_path / "toy", write).skipped
    done.folder.rename(tmp_path / ".toy.partial")
    assert stage(tmp_path / "toy", write).skipped


def test_foreign_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.tex").write_text("mine")
    with pytest.raises(StageError, match="holds files that no stage wrote"):
        stage(tmp_path / "toy", write)
    assert (tmp_path / "toy" / "thesis.tex").read_text() == "mine"


def test_two_runs_into_one_folder_exclude_each_other(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".toy.lock"), pytest.raises(StageError, match="another process is running toy"):
        stage(tmp_path / "toy", write)


def test_a_broken_manifest_is_named(tmp_path: Path) -> None:
    done = stage(tmp_path / "toy", write)
    (done.folder / MANIFEST).write_text("{")
    with pytest.raises(StageError, match=r"manifest\.json: not a manifest"):
        read_manifest(done.folder)


def test_fingerprints_follow_content_not_place(tmp_path: Path) -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("same")
    assert fingerprint_path(tmp_path / "one") == fingerprint_path(tmp_path / "two")
    (tmp_path / "two" / "file").write_text("other")
    assert fingerprint_path(tmp_path / "one") != fingerprint_path(tmp_path / "two")
    done = stage(tmp_path / "toy", write)
    assert fingerprint_path(done.folder) == json.loads((done.folder / MANIFEST).read_text())["key"]
    with pytest.raises(FileNotFoundError):
        fingerprint_path(tmp_path / "nowhere")
