"""Negatives that trials mine for themselves: once for all trials with the same filters, and no longer than needed."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from ranker.config import Experiment
from ranker.manifest import MANIFEST
from ranker.tuning.bench import Bench, all_slots
from ranker.tuning.recipe import mined_key
from ranker.tuning.records import MODEL, SETTINGS, TRIALS

MINED, LOCK = "mined", ".lock"
# Of what no trial needs any more so many stay, the last used: the next trial often has filters that one had before.
SPARE = 4


def mine_once(bench: Bench, config: Experiment) -> None:
    """The stage `mine` of a trial, once for all trials with the same filters, and one at a time.

    Mining takes all cores that it finds, so nothing trains meanwhile.
    """
    from ranker.training.mining import mine

    (bench.work / MINED).mkdir(exist_ok=True)
    with FileLock(bench.work / MINED / LOCK):
        there = (config.folder("mine") / MANIFEST).is_file()
        with nullcontext() if there else all_slots(bench):
            # The seed decides which dev queries are kept: all trials must have the same.
            mine(config.with_overrides({"seed": bench.base.seed}))
        os.utime(config.folder("mine"))


def drop_mined(bench: Bench, live: Callable[[], Iterable[Path]]) -> list[str]:
    """Delete what was mined for trials that are over, but what models that stay were made from, and the last SPARE.

    Args:
        live: gives the folders of trials that are not over; asked when no trial can take up what is deleted here.

    Returns:
        Names of what is gone; none while a trial mines, and the next that ends looks again.
    """
    place = bench.work / MINED
    lock = FileLock(place / LOCK)
    try:
        if not place.exists():
            return []
        lock.acquire(timeout=0)
    except Timeout:
        return []
    try:
        kept = [model.parent for model in (bench.work / TRIALS).glob(f"*/{MODEL}")]
        needed = {key for folder in (*live(), *kept) if (key := _key_of(folder)) is not None}
        return _drop(place, needed)
    finally:
        lock.release()


def _drop(place: Path, needed: set[str]) -> list[str]:
    folders = [folder for folder in place.iterdir() if folder.is_dir()]
    whole = [folder for folder in folders if not folder.name.startswith(".") and folder.name not in needed]
    gone = sorted(whole, key=lambda folder: folder.stat().st_mtime, reverse=True)[SPARE:]
    # Under another name first: a kill in the middle must leave nothing that looks like a stage.
    rest = [folder.rename(place / f".{folder.name}.dropped") for folder in gone]
    rest += [folder for folder in folders if folder.name.startswith(".") and folder.name.split(".")[1] not in needed]
    for folder in rest:
        shutil.rmtree(folder, ignore_errors=True)
    return [folder.name for folder in gone]


def _key_of(trial: Path) -> str | None:
    file = trial / SETTINGS
    return mined_key(json.loads(file.read_text("utf-8"))) if file.is_file() else None
