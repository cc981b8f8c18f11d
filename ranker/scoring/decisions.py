"""What was decided for a model on a machine, kept beside the model (or in the cache) for the next start."""

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from ranker.config import ScoringConfig
from ranker.machine import processor
from ranker.manifest import StageError, fingerprint, installed_packages, read_manifest, write_json
from ranker.scoring.model_folder import ModelFiles

log = logging.getLogger(__name__)

# Hidden, so that no fingerprint of the folder changes.
FILE = ".scoring.json"
# What is measured depends on these; not on passages, a cascade or a mix of scores, which every way shares.
SETTINGS = ("batch_tokens", "lanes", "min_rank_correlation", "max_ndcg_loss")
PACKAGES = ("torch", "transformers", "onnxruntime", "openvino", "ranker")


def decision_key(files: ModelFiles, max_length: int, threads: int, config: ScoringConfig) -> str:
    """Names everything that the decision depends on: machine, model, versions and settings.

    No weight is read for it: a finished stage has its key, and other files their names, sizes and times.
    """
    return fingerprint(
        {
            "processor": processor(),
            "threads": threads,
            "model": _model_key(files),
            "packages": installed_packages(PACKAGES),
            "settings": {name: getattr(config, name) for name in SETTINGS},
            "max_length": max_length,
        }
    )


def _model_key(files: ModelFiles) -> list[Any]:
    folder = Path(files.model)
    if not folder.is_dir():
        return [files.model]
    parts = {graph for graph in files.graphs if graph.is_file()}
    key = _stage_key(folder)
    if key is None:
        parts |= {file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")}
    found = [(part, part.stat()) for part in sorted(parts)]
    # Whole seconds, since an archive keeps no more: a copy is the same model.
    return [key, *((str(_within(folder, part)), stat.st_size, int(stat.st_mtime)) for part, stat in found)]


def _stage_key(folder: Path) -> str | None:
    try:
        return read_manifest(folder).key
    except StageError:  # no stage of ours, or not whole
        return None


def _within(folder: Path, part: Path) -> Path:
    return part.relative_to(folder) if part.is_relative_to(folder) else part


def recall(files: ModelFiles, key: str) -> dict[str, Any] | None:
    """The decision of this key; None where there is none that can be read."""
    for place in _places(files):
        try:
            found = json.loads(place.read_text("utf-8")).get(key)
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(found, dict):
            return found
    return None


def keep(files: ModelFiles, key: str, decision: dict[str, Any]) -> Path | None:
    """Write the decision beside the model, else into the cache; None where neither can be written."""
    for place in _places(files):
        try:
            known = json.loads(place.read_text("utf-8")) if place.is_file() else {}
        except (OSError, ValueError):
            known = {}
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, {**(known if isinstance(known, dict) else {}), key: decision})
        except OSError:
            continue
        return place
    log.warning("the decision of how to score cannot be kept: neither %s can be written", _places(files))
    return None


@contextmanager
def alone(key: str) -> Iterator[None]:
    """One process of this machine at a time for a key; without waiting where no folder takes a lock."""
    with ExitStack() as held:
        for folder in (cache_folder(), Path(tempfile.gettempdir())):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(folder / f".{key}.lock"))
                break
            except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
                log.info("%s takes no lock: %s", folder, error)
        yield


def cache_folder() -> Path:
    """``$RANKER_HOME/scoring``, else below ``~/.cache/ranker``; of a user without a home, in the temporary folder."""
    home = os.environ.get("RANKER_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ranker"
    try:
        return Path(home).expanduser() / "scoring"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "ranker" / "scoring"


def _places(files: ModelFiles) -> list[Path]:
    folder = Path(files.model)
    beside = [folder / FILE] if folder.is_dir() and os.access(folder, os.W_OK) else []
    return [*beside, cache_folder() / f"{fingerprint(str(files.model))}.json"]
