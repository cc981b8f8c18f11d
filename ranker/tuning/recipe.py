"""How a model is made: one training run, or several of which each goes on from the weights of the one before. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranker.config import Experiment
from ranker.manifest import fingerprint, fingerprint_path, read_manifest
from ranker.pretrained import resolve
from ranker.training.general import mix_groups

MINED = "mine."


@dataclass(frozen=True)
class Recipe:
    """What makes a model.

    Args:
        segments: what each run changes of the experiment, path -> value; one, but for population based training,
            where each part of the training has its own settings.
        generations: into how many parts a run of full length is cut.
    """

    segments: tuple[Mapping[str, Any], ...]
    generations: int = 1

    @property
    def overrides(self) -> dict[str, Any]:
        """Of the last run."""
        return dict(self.segments[-1])

    def plain(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {"segments": [dict(segment) for segment in self.segments], "generations": self.generations}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Recipe":
        """What :meth:`plain` gave."""
        return cls(tuple(plain["segments"]), plain["generations"])


def key_of(overrides: Mapping[str, Any]) -> str:
    """Name of the folder of a trial: trials with the same settings share it, and a sweep that forgot one finds it."""
    return fingerprint(dict(overrides))


def mines(overrides: Mapping[str, Any]) -> bool:
    """Whether a trial has negatives of its own."""
    return any(path.startswith(MINED) for path in overrides)


def mined_key(overrides: Mapping[str, Any]) -> str | None:
    """Name of the folder of what a trial mines, shared by all with the same filters; None where it mines nothing."""
    named = {path: value for path, value in overrides.items() if path.startswith(MINED)}
    return key_of(named) if named else None


def trial_config(base: Experiment, overrides: Mapping[str, Any], model: Path, mined: Path) -> Experiment:
    """The experiment of a trial.

    Args:
        base: with absolute folders. model: where the model goes. mined: folder for what trials mine.
    """
    places: dict[str, Any] = {"train.output_dir": str(model), "train.track": ()}
    if (key := mined_key(overrides)) is not None:
        places["mine.output_dir"] = str(mined / key)
    return base.with_overrides({**overrides, **places})


def part_config(config: Experiment, generation: int, generations: int, parent: Path | None) -> Experiment:
    """One of several parts of a run: its share of the steps, other groups than the parts before, their weights.

    Args:
        generation: from 0. parent: the model of the part before; None for the backbone.
    """
    changes: dict[str, Any] = {"train.epochs": config.train.epochs / generations, "seed": config.seed + generation}
    if config.train.max_steps is not None:
        changes["train.max_steps"] = max(1, config.train.max_steps // generations)
    if parent is not None:
        changes["train.model"] = str(parent)
    return config.with_overrides(changes)


def absolute(config: Experiment) -> Experiment:
    """The experiment with absolute folders: a trial runs in another working directory."""
    changes: dict[str, Any] = {
        "output_dir": str(Path(config.output_dir).expanduser().absolute()),
        "mine.output_dir": str(config.folder("mine")),
        "data.output_dir": str(config.folder("data")),
        "index.output_dir": str(config.folder("index")),
        "train.model": resolve(config.train.model),
    }
    if config.train.groups is not None:
        changes["train.groups"] = str(Path(config.train.groups).expanduser().absolute())
    if config.train.mix:
        changes["train.mix"] = [
            {"groups": str(place), "share": mix.share}
            for place, mix in zip(_mix_places(config), config.train.mix, strict=True)
        ]
    return config.with_overrides(changes)


def groups_folder(config: Experiment) -> Path:
    """The folder in which the groups and their dev queries lie.

    Raises:
        ranker.manifest.StageError: where the stage `mine` has not finished.
    """
    if config.train.groups is None:
        read_manifest(config.folder("mine"))
        return config.folder("mine")
    named = Path(config.train.groups).expanduser().absolute()
    return named if named.is_dir() else named.parent


def sources(config: Experiment) -> dict[str, str]:
    """Fingerprints of what every trial reads."""
    model = resolve(config.train.model)
    found = {
        "groups": fingerprint_path(groups_folder(config)),
        "model": fingerprint_path(Path(model)) if Path(model).is_dir() else model,
    }
    for number, place in enumerate(_mix_places(config), 1):
        found[f"mix {number}"] = fingerprint_path(place)
    return found


def _mix_places(config: Experiment) -> list[Path]:
    return [Path(mix_groups(mix.groups, config)).expanduser().absolute() for mix in config.train.mix]


def make_model(
    base: Experiment, recipe: Recipe, folder: Path, fit: Any, mined: Path, callbacks: Sequence[Any] = ()
) -> Experiment:
    """Train by a recipe into ``folder/model``; the config of its last run.

    Args:
        fit: the door of the stage `train`. mined: folder of what was mined for trials.
    """
    parent: Path | None = None
    for number, segment in enumerate(recipe.segments):
        last = number + 1 == len(recipe.segments)
        place = folder / ("model" if last else f"part-{number}")
        config = trial_config(base, segment, place, mined)
        if recipe.generations > 1:
            config = part_config(config, number, recipe.generations, parent)
        fit(config, callbacks)
        parent = place
    return config
