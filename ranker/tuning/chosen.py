"""Which recipe `ranker retrain` takes: that of a sweep's best trial, or of the best model below a folder."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranker.config import Experiment, known_paths
from ranker.manifest import MANIFEST, Manifest, StageError, read_manifest
from ranker.tuning.recipe import MINED, Recipe
from ranker.tuning.records import LOG, measured

# Of a model's own config: what says where it came from, and not how it was trained.
NOT_RECIPE = ("mix", "record_order", "track")
# Measuring on the way is over when there is nothing to measure on.
MEASURING: dict[str, Any] = {"train.evaluate_every": None, "train.patience": None, "train.keep_best": 1}


@dataclass(frozen=True)
class Chosen:
    """A recipe and where it came from.

    Args:
        best_share: share of its steps after which the weights were best. told: for people. key: of where it was read.
    """

    recipe: Recipe
    best_share: float
    told: str
    key: str

    @property
    def mining(self) -> dict[str, Any]:
        """What it changes of `mine`."""
        return {path: value for path, value in self.recipe.overrides.items() if path.startswith(MINED)}

    def settled(self, base: Experiment) -> Recipe:
        """The recipe without measurements on the way, as long as led to the best weights, on groups mined already."""
        segments = []
        for segment in self.recipe.segments:
            train = base.with_overrides(segment).train
            kept = {path: value for path, value in segment.items() if not path.startswith(MINED)}
            kept |= {**MEASURING, "train.epochs": train.epochs * self.best_share}
            if train.max_steps is not None:
                kept["train.max_steps"] = max(1, round(train.max_steps * self.best_share))
            segments.append(kept)
        return Recipe(tuple(segments), self.recipe.generations)


def choose(source: Path, config: Experiment) -> Chosen:
    """The recipe of a sweep's folder or its best.yaml, of a model folder, or of the best model below a folder.

    Raises:
        StageError: where there is none.
    """
    place = source.expanduser().absolute()
    place = place.parent if place.is_file() else place
    if not place.exists():
        raise StageError(f"{source}: no such folder; run `ranker tune` first, or name a sweep or a folder of models")
    if (place / MANIFEST).is_file():
        manifest = read_manifest(place)
        if manifest.stage == "tune":
            return _of_sweep(place, manifest)
        if manifest.stage == "train":
            return _of_model(place, manifest)
    return _of_model(*_best_model(place, config.tune.metric))


def _of_sweep(folder: Path, manifest: Manifest) -> Chosen:
    found = json.loads((folder / "best.json").read_text("utf-8"))
    told = f"trial {found['best_trial']} of the sweep {folder}, dev {found['dev']}"
    return Chosen(Recipe.of(found), found["best_share"], told, manifest.key)


def _of_model(folder: Path, manifest: Manifest) -> Chosen:
    known = {path.removeprefix("train.").partition(".")[0] for path in known_paths() if path.startswith("train.")}
    overrides: dict[str, Any] = {
        f"train.{name}": value for name, value in manifest.config.items() if name in known and name not in NOT_RECIPE
    }
    if "backbone" in manifest.outcome:
        overrides["train.model"] = manifest.outcome["backbone"]
    if "seed" in manifest.config:
        overrides["seed"] = manifest.config["seed"]
    share, metric = 1.0, str(manifest.config.get("metric", "ndcg@10"))
    points = [point for point, _ in measured(folder / LOG, metric)]
    if points and manifest.config.get("evaluate_every") is not None:
        share = max(points, key=lambda point: point.value).share
    dev = manifest.outcome.get("dev", {})
    return Chosen(Recipe((overrides,)), share, f"the model {folder}, dev {dev}", manifest.key)


def _best_model(folder: Path, metric: str) -> tuple[Path, Manifest]:
    """The model below a folder that was best on dev; models measured on other dev queries are not comparable.

    Raises:
        StageError: where none was measured, or they were measured on different dev queries.
    """
    models = [(place, told) for place, told in trained_models(folder) if not math.isnan(_value(told, metric))]
    if not models:
        raise StageError(f"{folder}: no sweep and no trained model with a dev {metric} in it; run `ranker train` first")
    dev = {told.inputs.get("dev_groups.parquet", told.inputs.get("groups")) for _, told in models}
    if len(dev) > 1:
        places = ", ".join(str(place) for place, _ in models)
        raise StageError(f"{folder}: its models were measured on {len(dev)} different dev sets; name one of {places}")
    return max(models, key=lambda pair: _value(pair[1], metric))


def trained_models(folder: Path) -> list[tuple[Path, Manifest]]:
    """Finished model folders below a folder, newest first; work folders are left out."""
    found = [(file.parent, read_manifest(file.parent)) for file in _manifests(folder)]
    return sorted((pair for pair in found if pair[1].stage == "train"), key=lambda pair: pair[1].finished, reverse=True)


def _manifests(folder: Path) -> Iterable[Path]:
    files = sorted(folder.rglob(MANIFEST))
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _value(manifest: Manifest, metric: str) -> float:
    return float(manifest.outcome.get("dev", {}).get(metric, math.nan))
