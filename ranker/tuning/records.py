"""What a trial leaves in its own folder, which is what a sweep believes: Tune may forget, files do not. Without Ray."""

import contextlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ranker.manifest import write_json, write_text

STARTED, TRIALS = "started", "trials"
SETTINGS, OUTCOME, FAILED, STOPPED = "settings.json", "outcome.json", "error.txt", "stopped.json"
# Why a trial that trains nothing yet is waiting; the driver reads and deletes it.
WAITING = "waiting.txt"
MODEL, PARTIAL, LOG = "model", ".model.partial", "training_log.jsonl"


@dataclass(frozen=True)
class Point:
    """One measurement on the dev queries.

    Args:
        share: of the run's steps, 0 to 1. value: the measure that decides.
    """

    share: float
    value: float


@dataclass(frozen=True)
class Ended:
    """What a trial came to.

    Args:
        value: of its model. measures: all of that measurement. points: every measurement, in order.
        seconds: wall time. train_seconds: of that in training steps. best_share: share of the steps after which the
            weights were best. latency_ms: a query's; None where it was not measured.
    """

    value: float
    measures: dict[str, float] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    seconds: float | None = None
    train_seconds: float | None = None
    best_share: float = 1.0
    latency_ms: float | None = None


def write_ended(file: Path, ended: Ended) -> None:
    """Keep it; ``file`` is OUTCOME of a finished trial, STOPPED of one that a scheduler ended."""
    write_json(file, asdict(ended))


def read_ended(file: Path) -> Ended | None:
    """What was kept; None where nothing was."""
    if not file.is_file():
        return None
    found = json.loads(file.read_text("utf-8"))
    points = tuple(Point(**point) for point in found.pop("points"))
    return Ended(**found, points=points)


def measured(log: Path, metric: str) -> list[tuple[Point, dict[str, float]]]:
    """Every measurement of a training log, with all its measures; the mean over the dev sets is what decides."""
    found = []
    for line in log.read_text("utf-8").splitlines() if log.is_file() else ():
        with contextlib.suppress(ValueError):  # half-written
            record = json.loads(line)
            if "dev" in record:
                values = [value for name, value in record["dev"].items() if name.rpartition("/")[2] == metric]
                point = Point(record["step"] / max(1, record["total"]), sum(values) / max(1, len(values)))
                found.append((point, record["dev"]))
    return found


def ended_of(log: Path, metric: str, chooses: bool) -> Ended:
    """What a training log says.

    Args:
        chooses: whether the best measured weights became the model (`train.evaluate_every`), or the last.
    """
    found = measured(log, metric)
    if not found:
        return Ended(math.nan)
    place = max(range(len(found)), key=lambda number: found[number][0].value) if chooses else len(found) - 1
    point, measures = found[place]
    return Ended(point.value, measures, tuple(point for point, _ in found), best_share=point.share)


def log_of(folder: Path) -> Path:
    """The training log of a trial that has ended or not."""
    return next((file for part in (MODEL, PARTIAL) if (file := folder / part / LOG).is_file()), folder / MODEL / LOG)


def note_start(work: Path, trial_id: str, key: str, overrides: Mapping[str, Any]) -> Path:
    """The folder of a trial, made, with what it changes; Tune forgets the settings of a trial that failed."""
    folder = work / TRIALS / key
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILED).unlink(missing_ok=True)
    write_json(folder / SETTINGS, dict(overrides))
    (work / STARTED).mkdir(exist_ok=True)
    if not (work / STARTED / trial_id).exists():  # whose age says which trial was first
        write_text(work / STARTED / trial_id, key)
    return folder


def folder_of(work: Path, trial_id: str) -> Path | None:
    """The folder of a trial that has started."""
    file = work / STARTED / trial_id
    return work / TRIALS / file.read_text("utf-8").strip() if file.is_file() else None


def note_stop(folder: Path, metric: str, seconds: float | None) -> None:
    """Keep the measurements of a trial that was stopped, and nothing else of it."""
    if not (folder / OUTCOME).is_file() and not (folder / FAILED).is_file():
        told = ended_of(log_of(folder), metric, chooses=True)
        write_ended(folder / STOPPED, Ended(told.value, told.measures, told.points, seconds, None, told.best_share))


def started_trials(work: Path) -> list[str]:
    """Ids of the trials that have started, in that order."""
    files = [file for file in (work / STARTED).glob("*") if not file.name.startswith(".")]  # those are half-written
    return [file.name for file in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name))]


def standing(value: float, latency_ms: float | None, number: int, most_ms: float | None) -> tuple[float, ...]:
    """What trials are sorted by, the best first: which one wins and whose weights stay are one question.

    Args:
        value: of a trial with a model. number: in the order in which trials began; the first of equal ones is better.
        most_ms: milliseconds a query that a model may take. Slower ones stand behind, the fastest of them first. None:
            time does not count.
    """
    took = math.inf if latency_ms is None else latency_ms
    if most_ms is None or took <= most_ms:
        return (0, -value, number)
    return (1, took, -value, number)


def tidy(work: Path, keep: int, running: Sequence[str] = (), most_ms: float | None = None) -> list[str]:
    """Delete the weights of all trials that have ended but those of the best ``keep``; the names of the folders.

    Args:
        running: folders to leave alone. most_ms: as in :func:`standing`.
    """
    numbers: dict[str, int] = {}
    for number, trial_id in enumerate(started_trials(work)):
        if (folder := folder_of(work, trial_id)) is not None:
            numbers.setdefault(folder.name, number)
    ended = [folder.name for folder in sorted((work / TRIALS).glob("*")) if folder.name not in running]
    stands = {}
    for name in ended:
        found = read_ended(work / TRIALS / name / OUTCOME)
        if found is not None and not math.isnan(found.value):
            stands[name] = standing(found.value, found.latency_ms, numbers.get(name, len(numbers)), most_ms)
    best = sorted(stands, key=lambda name: stands[name])[:keep]
    dropped = []
    for name in ended:
        kept = name in best
        # A trial that lost its process may go on: only one that has told how it ended loses its work folder.
        told = any((work / TRIALS / name / file).is_file() for file in (OUTCOME, FAILED, STOPPED))
        for part in ([] if kept else [MODEL]) + ([PARTIAL] if told else []):
            if (work / TRIALS / name / part).exists():
                shutil.rmtree(work / TRIALS / name / part, ignore_errors=True)
                dropped.append(name)
    return dropped
