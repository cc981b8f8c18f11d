"""One experiment = one file, one section a stage; one way to change it: dotted path -> value.

All mistakes of a file are reported at once, each with its dotted path and the nearest known name.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from ranker.config.retrieval import DataConfig, IndexConfig, MineConfig
from ranker.config.scoring import EvaluateConfig, ExportConfig, RayConfig, ServeConfig
from ranker.config.section import Section
from ranker.config.training import TrainConfig
from ranker.config.tuning import TuneConfig
from ranker.registry import nearest

Stage = Literal["data", "index", "mine", "train", "tune", "evaluate", "export"]
FOLDERS: dict[str, str] = {
    "data": "data",
    "index": "index",
    "mine": "mine",
    "train": "model",
    "tune": "sweep",
    "evaluate": "evaluation",
    "export": "onnx",
}


class ConfigError(ValueError):
    """An experiment that cannot be; one line a mistake."""


class Experiment(Section):
    """Everything that a user can set."""

    name: str = "experiment"
    """What reports call it."""
    output_dir: str = Field("runs/experiment", json_schema_extra={"local": True})
    """Folder that holds the folders of the stages."""
    seed: int = 13
    """Decides every sample, shuffle and new weight."""
    data: DataConfig = DataConfig()
    index: IndexConfig = IndexConfig()
    mine: MineConfig = MineConfig()
    train: TrainConfig = TrainConfig()
    tune: TuneConfig = TuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
    serve: ServeConfig = ServeConfig()
    ray: RayConfig = RayConfig()

    def folder(self, stage: Stage) -> Path:
        """Absolute folder of a stage: the one that its section names, else its place in ``output_dir``."""
        named = getattr(self, stage).output_dir
        return Path(named or Path(self.output_dir) / FOLDERS[stage]).expanduser().absolute()

    def with_overrides(self, overrides: Mapping[str, Any]) -> "Experiment":
        """A new experiment with ``{"train.lora.r": 8}`` applied and everything checked again.

        Raises:
            ConfigError: all unknown paths and bad values at once.
        """
        plain = self.model_dump()
        problems = [problem for path, value in overrides.items() if (problem := _assign(plain, path, value))]
        return _validate(plain, "overrides", problems)

    def to_yaml(self) -> str:
        """The whole experiment, defaults included, as a file that :func:`load_experiment` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_experiment(path: str | Path, overrides: Iterable[str] | Mapping[str, Any] = ()) -> Experiment:
    """Read an experiment file and apply ``--set`` overrides (``train.lora.r=8``, values are YAML).

    Raises:
        FileNotFoundError: where there is no such file.
        ConfigError: all mistakes of the file and the overrides at once.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such experiment file; the ones that ship are in jobs/")
    try:
        plain = yaml.safe_load(file.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {error}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{file}: must hold sections such as 'data:' and 'train:', not a {type(plain).__name__}")
    pairs = overrides if isinstance(overrides, Mapping) else parse_overrides(overrides)
    problems = [problem for key, value in pairs.items() if (problem := _assign(plain, key, value))]
    return _validate(plain, str(file), problems)


def parse_overrides(assignments: Iterable[str], flag: str = "--set") -> dict[str, Any]:
    """``["train.lora.r=8"]`` -> ``{"train.lora.r": 8}``; the value is read as YAML, so 1e-5 and null work.

    Args:
        flag: what an error message calls the option that they were given to.

    Raises:
        ConfigError: naming every assignment without ``=`` or with a value that is not YAML.
    """
    parsed, problems = {}, []
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            problems.append(f"{flag} {assignment!r}: write it as name=value")
            continue
        try:
            parsed[path.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            problems.append(f"{flag} {assignment!r}: the value is not YAML: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return parsed


def known_paths(model: type[BaseModel] = Experiment, prefix: str = "") -> list[str]:
    """Every dotted path that an experiment has."""
    paths = []
    for name, info in model.model_fields.items():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            paths += known_paths(inner, f"{prefix}{name}.")
        else:
            paths.append(prefix + name)
    return paths


def _assign(plain: dict[str, Any], path: str, value: Any) -> str | None:
    """Set a dotted path in a nested dict; a sentence when the path leads through something that has no keys."""
    *parents, last = path.split(".")
    place = plain
    for name in parents:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            return f"{path}: {name!r} is a value, not a section; {nearest(path, known_paths())}"
        place = inner
    place[last] = value
    return None


def _validate(plain: dict[str, Any], where: str, problems: list[str]) -> Experiment:
    try:
        experiment = Experiment.model_validate(plain)
    except ValidationError as error:
        problems = [*problems, *(_explain(detail) for detail in error.errors())]
        experiment = None
    if problems or experiment is None:
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise ConfigError("\n".join([f"{where}: {count}", *(f"  {problem}" for problem in problems)]))
    return experiment


def _explain(detail: ErrorDetails) -> str:
    # Members of a Union add their type's name to the location; a config path never has those.
    path = ".".join(str(part) for part in detail["loc"] if not str(part).startswith(("constrained-", "function-")))
    if detail["type"] == "extra_forbidden":
        return f"{path}: unknown; {_nearest_path(path)}"
    if detail["type"] == "value_error":
        return f"{path}: {detail['ctx']['error']}" if "ctx" in detail else f"{path}: {detail['msg']}"
    return f"{path}: {detail['msg']}, not {detail['input']!r}"


def _nearest_path(path: str) -> str:
    section, _, last = path.rpartition(".")
    siblings = {known[len(section) + 1 if section else 0 :].split(".")[0] for known in known_paths()
                if known.startswith(f"{section}." if section else "")}  # fmt: skip
    from_elsewhere = [known for known in known_paths() if known.rpartition(".")[2] == last]
    if from_elsewhere and last not in siblings:
        return f"did you mean {' or '.join(map(repr, from_elsewhere[:2]))}?"
    return nearest(last, sorted(siblings))


STAGES: tuple[str, ...] = get_args(Stage)
