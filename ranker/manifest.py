"""Stages hand over folders: atomic, fingerprinted, with a ``manifest.json`` that says where they came from.

A folder with a manifest is whole. Anything else is a work folder (``.NAME.partial``) that only the same
stage with the same inputs continues.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

# In a work folder: the key of the stage that is at work there.
WORK_KEY = ".key"
MANIFEST = "manifest.json"
PACKAGES = ("ranker", "torch", "ray", "transformers", "sentence-transformers", "faiss-cpu", "peft", "deepspeed")


class StageError(RuntimeError):
    """A stage cannot start or its input is not whole; the message says what to run first."""


@dataclass(frozen=True)
class Manifest:
    """What a finished stage says of itself.

    Args:
        stage: name of the door. key: fingerprint of config and inputs; the same key is never run twice.
        config: the part of the config that decides the result. inputs: input name -> fingerprint.
        outcome: counts, metrics and decisions of the stage. packages: versions it ran with.
        seconds: wall time of the run that finished it.
    """

    stage: str
    key: str
    config: dict[str, Any]
    inputs: dict[str, str]
    outcome: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    finished: str = ""


@dataclass(frozen=True)
class Done:
    """The result of a stage: its folder, its manifest, and whether this call found it already there."""

    folder: Path
    manifest: Manifest
    skipped: bool

    @property
    def outcome(self) -> dict[str, Any]:
        """Counts, metrics and decisions."""
        return self.manifest.outcome

    def summary(self) -> dict[str, Any]:
        """What a job prints as JSON."""
        return {
            "stage": self.manifest.stage,
            "folder": str(self.folder),
            "skipped": self.skipped,
            "seconds": round(self.manifest.seconds, 1),
            **self.outcome,
        }


def fingerprint(value: Any) -> str:
    """A short stable hash of anything JSON can say (mappings by sorted key)."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_path(path: Path) -> str:
    """Fingerprint of an input: a stage folder by its key, any other file or folder by its content.

    Raises:
        FileNotFoundError: where there is nothing.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if (path / MANIFEST).is_file():
        return read_manifest(path).key
    return fingerprint_files(path)


def fingerprint_files(path: Path) -> str:
    """Fingerprint of the content of a file, or of all files of a folder but the hidden ones."""
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished stage.

    Raises:
        StageError: where the folder is missing, half-written or its manifest cannot be read.
    """
    file = folder / MANIFEST
    if not file.is_file():
        hint = f"; {_partial(folder)} holds an unfinished run" if _partial(folder).exists() else ""
        raise StageError(f"{folder}: no finished stage here (no {MANIFEST}){hint}; run the stage that writes it first")
    try:
        return Manifest(**json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise StageError(f"{file}: not a manifest ({error}); delete the folder and run the stage again") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON to a temporary name, flush it to disk, then rename: readers see the old file or the new one."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """The same for any text."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def synchronise(path: Path) -> None:
    """Have what is written of a file on the disk; of a folder, the names in it: a new name is there only then."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def installed_packages(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of the packages that decide a result."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def run_stage(
    stage: str,
    folder: Path,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    make: Callable[[Path], Mapping[str, Any]],
    *,
    wait: bool = False,
) -> Done:
    """Run ``make(work_folder) -> outcome`` once for this config and these inputs, and publish its folder.

    The same key finds the finished folder and skips. An interrupted run with the same key continues in its
    work folder, which keeps whatever ``make`` left there. Another key starts from an empty work folder; the
    finished folder of the old key stays until the new one is whole.

    Args:
        wait: for another process that is running this stage into the same folder, instead of raising.

    Raises:
        StageError: when another process is running this stage into the same folder.
    """
    key = fingerprint({"stage": stage, "config": config, "inputs": inputs})
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            return _run_locked(stage, folder, key, dict(config), dict(inputs), make)
    except Timeout:
        if wait:
            log.info("%s: waiting for another process that is running %s", folder, stage)
            with lock:
                return _run_locked(stage, folder, key, dict(config), dict(inputs), make)
        raise StageError(f"{folder}: another process is running {stage} here; wait for it or stop it") from None


def _run_locked(
    stage: str,
    folder: Path,
    key: str,
    config: dict[str, Any],
    inputs: dict[str, str],
    make: Callable[[Path], Mapping[str, Any]],
) -> Done:
    _recover(folder)
    if (folder / MANIFEST).is_file():
        found = read_manifest(folder)
        if found.key == key:
            log.info("%s: already done in %s", stage, folder)
            return Done(folder, found, skipped=True)
        log.info("%s: running again, since %s changed", stage, ", ".join(_changed(found, config, inputs)))
    work = _open_work(folder, key)
    start = time.monotonic()
    outcome = json.loads(json.dumps(dict(make(work)), default=str))
    finished = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    seconds = time.monotonic() - start
    manifest = Manifest(stage, key, config, inputs, outcome, installed_packages(), seconds, finished)
    (work / WORK_KEY).unlink()
    write_json(work / MANIFEST, asdict(manifest))
    _publish(work, folder)
    log.info("%s: finished in %.1f s, %s", stage, seconds, folder)
    return Done(folder, manifest, skipped=False)


def _changed(found: Manifest, config: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
    """Names of what differs from a finished run."""
    now = json.loads(json.dumps({**config, **{f"the input {name}": key for name, key in inputs.items()}}, default=str))
    then = {**found.config, **{f"the input {name}": key for name, key in found.inputs.items()}}
    return sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name)) or ["the stage"]


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _open_work(folder: Path, key: str) -> Path:
    work = _partial(folder)
    mark = work / WORK_KEY
    if mark.is_file() and mark.read_text("utf-8") == key:
        log.info("continuing an interrupted run in %s", work)
        return work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    write_text(mark, key)
    return work


def _publish(work: Path, folder: Path) -> None:
    # Two renames, since a folder cannot be replaced by one; _recover repairs a stop between them.
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MANIFEST).is_file():
            raise StageError(f"{folder}: holds files that no stage wrote; choose another output folder or move them")
        shutil.rmtree(_previous(folder), ignore_errors=True)
        folder.rename(_previous(folder))
    work.rename(folder)
    shutil.rmtree(_previous(folder), ignore_errors=True)


def _recover(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise StageError(f"{folder}: holds files that no stage wrote; choose another output folder or move them")
    work, previous = _partial(folder), _previous(folder)
    if (work / MANIFEST).is_file():  # whole, stopped just before it was published
        _publish(work, folder)
    elif previous.exists() and not folder.exists():
        previous.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)
