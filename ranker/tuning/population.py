"""Population based training through the stage `train`: a member's run is cut into parts, each a run of its own.

A part goes on from the weights of the one before, so what is handed from a good member to a bad one is a model folder
and the settings of all parts that made it. The optimiser's state is not handed on, and the rate rises
anew in each part.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ranker.manifest import Done, fingerprint, write_json, write_text
from ranker.tuning.bench import Bench, in_slot
from ranker.tuning.mined import MINED, mine_once
from ranker.tuning.recipe import Recipe, mines, part_config, trial_config
from ranker.tuning.records import FAILED, LOG, MODEL, OUTCOME, Ended, Point, ended_of, write_ended
from ranker.tuning.trial import FAILED_VALUE, LATENCY, PASSING, VALUE, with_latency

PARENT, RECIPE, GENERATION = "parent", "recipe.json", "generation"
# Parts of a member that stay while it goes on; another one may still start from the newest.
KEPT_PARTS = 2


@dataclass(frozen=True)
class State:
    """Where a member stands.

    Args:
        generation: parts that are over. model: folder of its weights; None before the first part.
        segments: what made them, as in :class:`Recipe`. points: the value after each part.
        seconds, train_seconds: of all parts.
    """

    generation: int = 0
    model: str | None = None
    segments: tuple[dict[str, Any], ...] = ()
    points: tuple[Point, ...] = ()
    seconds: float = 0.0
    train_seconds: float = 0.0

    @property
    def value(self) -> float:
        """After the newest part."""
        return self.points[-1].value if self.points else FAILED_VALUE

    def plain(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "State":
        """What :meth:`plain` gave, also after it was JSON."""
        points = tuple(Point(**point) for point in plain["points"])
        return cls(**{**plain, "points": points, "segments": tuple(plain["segments"])})


def run_generations(
    bench: Bench,
    overrides: Mapping[str, Any],
    folder: Path,
    state: State,
    report: Callable[[dict[str, Any], State], None],
) -> None:
    """A member's parts one after the other, each reported with where it stands then.

    Args:
        state: of the member that it goes on from. report: takes metrics and the new state.
    """
    for generation in range(state.generation, bench.base.tune.generations):
        place = folder / f"{generation}-{fingerprint([dict(overrides), state.plain()])}"
        place.mkdir(exist_ok=True)
        try:
            state, failed = _train_part(bench, overrides, place, state), False
        except PASSING:
            raise
        except Exception as error:
            write_text(folder / f"{generation}-{FAILED}", f"{type(error).__name__}: {error}")
            state, failed = replace(state, generation=generation + 1), True
        metrics = {VALUE: FAILED_VALUE if failed else state.value, GENERATION: generation + 1}
        if generation + 1 == bench.base.tune.generations:
            metrics |= _finish(bench, overrides, folder, state)
        _forget(folder, place, state)
        report(metrics, state)


def _train_part(bench: Bench, overrides: Mapping[str, Any], place: Path, state: State) -> State:
    from ranker.training.trainer import fit

    parent = _keep_parent(state, place)
    config = trial_config(bench.base, overrides, place / MODEL, bench.work / MINED)
    if mines(overrides):
        mine_once(bench, config)
    part = part_config(config, len(state.segments), bench.base.tune.generations, parent)

    def train() -> tuple[Done, float]:
        start = time.monotonic()
        return fit(part), time.monotonic() - start

    done, seconds = in_slot(bench, place / MODEL, train)
    found = ended_of(place / MODEL / LOG, bench.metric, part.train.evaluate_every is not None)
    if found.value != found.value:
        raise ValueError(f"no {bench.metric} was measured on the dev queries")
    share = (len(state.segments) + 1) / bench.base.tune.generations
    return State(
        state.generation + 1, str(place / MODEL), (*state.segments, dict(overrides)),
        (*state.points, Point(share, found.value)), round(state.seconds + seconds, 2),
        state.train_seconds + done.outcome.get("train_seconds", 0.0),
    )  # fmt: skip


def _keep_parent(state: State, place: Path) -> Path | None:
    """The weights that a part starts from, as links beside it: it can be trained again when their owner is gone."""
    if state.model is None:
        return None
    if not (place / PARENT).exists():
        temporary = place / f".{PARENT}"
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(state.model, temporary, copy_function=_link)
        temporary.rename(place / PARENT)
    return place / PARENT


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)


def _finish(bench: Bench, overrides: Mapping[str, Any], folder: Path, state: State) -> dict[str, Any]:
    """Leave the member as any other trial: model, outcome, and the recipe of all its parts; further metrics."""
    if state.model is None:
        reasons = [file.read_text("utf-8") for file in sorted(folder.glob(f"*-{FAILED}"))]
        write_text(folder / FAILED, "every part failed; the last: " + reasons[-1])
        return {}
    for name in (MODEL, PARENT):
        source = Path(state.model).with_name(name)
        if source.exists() and not (folder / name).exists():
            shutil.copytree(source, folder / name, copy_function=_link)
    write_json(folder / RECIPE, Recipe(state.segments, bench.base.tune.generations).plain())
    ended = Ended(state.value, {bench.metric: state.value}, state.points, state.seconds, state.train_seconds)
    if bench.base.tune.latency:
        config = trial_config(bench.base, overrides, folder / MODEL, bench.work / MINED)
        ended = with_latency(ended, config, folder / MODEL)
    write_ended(folder / OUTCOME, ended)
    return {} if ended.latency_ms is None else {LATENCY: ended.latency_ms}


def _forget(folder: Path, newest: Path, state: State) -> None:
    """Delete a member's parts but the newest ones, and the one whose weights it has: parts after it may have failed."""
    parts = sorted((part for part in folder.glob("*-*") if part.is_dir()), key=lambda part: part.stat().st_mtime)
    kept = {newest, Path(state.model).parent} if state.model is not None else {newest}
    for part in [part for part in parts if part not in kept][: -(KEPT_PARTS - 1) or None]:
        shutil.rmtree(part, ignore_errors=True)


def recipe_of(folder: Path) -> Recipe:
    """What made the model of a trial."""
    if (folder / RECIPE).is_file():
        return Recipe.of(json.loads((folder / RECIPE).read_text("utf-8")))
    return Recipe((json.loads((folder / "settings.json").read_text("utf-8")),))
