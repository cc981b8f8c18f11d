"""What a service loads: the folders that finished stages left, found and checked before anything starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ranker.config import Experiment, ScoringConfig, ServeConfig, load_experiment
from ranker.manifest import MANIFEST, StageError
from ranker.pretrained import ModelNotFoundError, resolve

# Formats that run code when they are loaded, and files of these names that nothing loads.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
HARMLESS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth")


class ServeArgs(BaseModel):
    """``args:`` of the application in a Serve config. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    experiment: str | None = None
    """Experiment file; its ``serve`` section and folders say what is loaded. Relative to the working directory."""
    overrides: dict[str, Any] = {}
    """Dotted path -> value on the experiment, as ``{"serve.scoring.engine": "torch"}``."""
    reranker: str | None = None
    """Model folder, torch or ONNX. None: that of the experiment."""
    index: str | None = None
    """Index folder. None: that of the experiment."""
    corpus: str | None = None
    """Data folder with the documents of the index. None: that of the experiment."""
    model_name: str | None = None
    """What answers call the reranker. None: the experiment's name, else the folder's."""
    models: dict[str, str] = {}
    """More rerankers: name -> folder. Requests choose by ``model``; without one, ``reranker`` answers."""
    retrieval: bool = True
    """False: no index is loaded and /search answers 404."""
    api_keys_file: str | None = None
    """File of API keys, one a line. None: the environment alone."""
    documents: str | None = None
    """Folder of the log of documents that are added while serving, on a disk that every node sees. None: `documents`
    beside the index of these arguments."""
    writable: bool = True
    """False: /documents cannot be changed."""
    allow_open: bool = False
    """Listen beyond loopback without a key."""
    deadline_s: float = Field(25.0, gt=0)
    """Seconds after which a request is answered with 504; keep it below http_options.request_timeout_s."""
    max_body_bytes: int = Field(16 * 1024 * 1024, ge=1)
    """Largest body of a request; 413 above."""


class RerankerSettings(BaseModel):
    """``user_config:`` of the deployment Reranker. A change of it alone swaps models without a restart."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    models: dict[str, str] = Field(min_length=1)
    """Name -> model folder; the first answers where a request names none."""


class RetrieverSettings(BaseModel):
    """``user_config:`` of the deployment Retriever. A change of it alone swaps the index without a restart."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    index: str
    """Index folder."""
    corpus: str
    """Data folder that the index was built from."""


@dataclass(frozen=True)
class Artefacts:
    """Absolute folders (or a hub id for the reranker) and the settings that the deployments need.

    Args:
        models: name -> folder or hub id; the first answers where a request names none.
        index, corpus: None when the service does not search.
    """

    models: dict[str, str]
    index: Path | None
    corpus: Path | None
    config: ServeConfig

    @property
    def model_name(self) -> str:
        """Name of the first model."""
        return next(iter(self.models))

    @property
    def reranker(self) -> str:
        """Folder or hub id of the first model."""
        return self.models[self.model_name]

    @property
    def scoring(self) -> ScoringConfig:
        """How the reranker scores."""
        return self.config.scoring


def find_artefacts(args: ServeArgs) -> Artefacts:
    """The folders that these arguments name, each checked to be whole.

    Raises:
        StageError: all folders that are missing or unfinished, each with the command that makes it.
        FileNotFoundError, ConfigError: on the experiment file.
    """
    base = Experiment()
    experiment = load_experiment(args.experiment, args.overrides) if args.experiment else base.with_overrides(
        args.overrides
    )  # fmt: skip
    problems: list[str] = []
    reranker = _find_reranker(args, experiment, problems)
    index = corpus = None
    if args.retrieval:
        index = _absolute(args.index or experiment.serve.index) or experiment.folder("index")
        corpus = _absolute(args.corpus) or experiment.folder("data")
        _require_stage(index, "index", "build_index", args, problems)
        _require_stage(corpus, "corpus", "prepare", args, problems)
    name = args.model_name or (experiment.name if args.experiment else Path(reranker).name)
    models = {name: reranker}
    for other, folder in args.models.items():
        if other == name:
            problems.append(f"models: {other!r} is already the name of the first reranker; give it another")
        models[other] = _resolved(folder, f"models.{other}", problems)
    problems += [problem for folder in dict.fromkeys(models.values()) for problem in find_pickles(Path(folder))]
    if problems:
        raise StageError("\n".join(["the service cannot start:", *(f"  {problem}" for problem in problems)]))
    return Artefacts(models, index, corpus, experiment.serve)


def documents_folder(args: ServeArgs, index: Path) -> Path:
    """Where the log of documents that are added while serving lies; named once, so that another index finds it too."""
    return Path(args.documents or index.parent / "documents").expanduser().absolute()


def refuse_pickles(model: str) -> None:
    """Let only a model pass whose weights cannot run code when they are loaded; a hub id is not looked into here.

    Raises:
        StageError: naming the files.
    """
    problems = find_pickles(Path(resolve(model)))
    if problems:
        raise StageError("\n".join(problems))


def find_pickles(folder: Path) -> list[str]:
    """What is wrong with a model folder whose weights are pickles, which can run any code when they are loaded.

    A pickle beside safetensors or ONNX is not loaded and does no harm.
    """
    if not folder.is_dir():
        return []
    found = sorted(file for suffix in PICKLES for file in folder.rglob(f"*{suffix}") if file.name not in HARMLESS)
    return [
        f"{file}: weights as a pickle, which are never loaded; save the model as safetensors "
        "(model.save_pretrained(folder)) or export it to ONNX"
        for file in found
        if not any(next(file.parent.glob(f"*{suffix}"), None) for suffix in (".safetensors", ".onnx"))
    ]


def _find_reranker(args: ServeArgs, experiment: Experiment, problems: list[str]) -> str:
    named = args.reranker or experiment.serve.reranker
    if named is None:
        exported, trained = experiment.folder("export"), experiment.folder("train")
        wanted = experiment.serve.scoring.engine
        use_exported = wanted == "onnx" or (wanted == "auto" and (exported / MANIFEST).is_file())
        folder = exported if use_exported else trained
        _require_stage(folder, "reranker", "export" if use_exported else "fit", args, problems)
        return str(folder)
    return _resolved(named, "reranker", problems)


def _resolved(named: str, where: str, problems: list[str]) -> str:
    try:
        return resolve(named)
    except ModelNotFoundError as error:
        problems.append(f"{where}: {error}")
        return named


# The verb of the command line that writes each folder.
_VERBS = {"build_index": "index", "prepare": "prepare", "fit": "train", "export": "export"}


def _require_stage(folder: Path, noun: str, stage: str, args: ServeArgs, problems: list[str]) -> None:
    if (folder / MANIFEST).is_file():
        return
    what = "holds no finished stage" if folder.exists() else "does not exist"
    if args.experiment and Path(args.experiment).name == "quickstart.yaml":
        remedy = "run 'ranker quickstart'"
    elif args.experiment:
        remedy = f"run 'ranker {_VERBS[stage]} {args.experiment}'"
    else:
        remedy = f"name a folder in args ({noun}: ...) or an experiment file (experiment: jobs/quickstart.yaml)"
    problems.append(f"{noun}: {folder} {what}; {remedy}")


def _absolute(folder: str | None) -> Path | None:
    return Path(folder).expanduser().absolute() if folder else None
