"""Every source of a collection by name, and the first stage: `prepare`.

A source is a name in DATASETS, ``ir_datasets:ID``, or the path of a folder or zip in BEIR layout.
"""

import inspect
import logging
import platform
from collections.abc import Callable
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from ranker.config import Experiment
from ranker.data.beir import read_beir
from ranker.data.datasets import DATASETS
from ranker.data.errors import DataError
from ranker.data.ir_sets import PREFIX, read_ir_dataset
from ranker.data.splits import Splits, hold_out_missing, rename_splits
from ranker.data.stored import open_collection, save_collection
from ranker.manifest import Done, fingerprint, fingerprint_path, run_stage
from ranker.registry import nearest
from ranker.schemas import SPLITS, Collection

__all__ = ["DATASETS", "load", "load_splits", "open_collection", "prepare", "save_collection"]

log = logging.getLogger(__name__)


def load(source: str, split: str = "test", **options: Any) -> Collection:
    """One split of a source, with the whole corpus; ``options`` are those of its loader.

    Raises:
        DataError: on an unknown source, option or split, or on files that are not what they should be.
    """
    return load_splits(source, **options).collection(split)


def load_splits(source: str, **options: Any) -> Splits:
    """All splits of a source, under the source's own names."""
    loader, first = _loader(source)
    return _call(loader, source, first, options)


def prepare(config: Experiment) -> Done:
    """Stage `data`: fetch the source, hold out the splits that it lacks, and store it as Parquet.

    Raises:
        DataError: on anything wrong with the source; nothing is left that looks whole.
    """
    data = config.data
    options = _with_seed(data.source, data.options, config.seed)

    def make(work: Path) -> dict[str, Any]:
        log.info("reading %s", data.source)
        loaded = load_splits(data.source, **options)
        names = {"train": data.train_split, "dev": data.dev_split, "test": data.test_split}
        cut, held_out = hold_out_missing(rename_splits(loaded, names), config.seed)
        if held_out:
            log.warning("%s has no %s split; held out from train", data.source, " and no ".join(held_out))
        save_collection(work, cut.corpus, cut.queries, cut.qrels)
        outcome = _counts(cut, held_out)
        queries = ", ".join(f"{split} {count}" for split, count in outcome["queries"].items())
        log.info("%s: %d documents, judged queries: %s", data.source, outcome["documents"], queries)
        return outcome

    identity = {**data.identity(), "seed": config.seed}
    inputs = {"source": source_fingerprint(data.source, options)}
    return run_stage("data", config.folder("data"), identity, inputs, make)


def source_fingerprint(source: str, options: dict[str, Any]) -> str:
    """What decides the content of a source besides its options: files, package versions, or its id."""
    loader, first = _loader(source)
    found: dict[str, Any] = {"source": Path(source).name if loader is read_beir else source}
    for place in [first if loader is read_beir else None, options.get("path"), *(options.get("roots") or [])]:
        if place is not None:
            found[f"files {len(found)}"] = _files_fingerprint(Path(place).expanduser())
    if source == "pydocs" and not options.get("roots"):
        found["python"] = platform.python_version()
        found["packages"] = sorted((str(d.metadata["Name"]).lower(), str(d.version)) for d in distributions())
    elif loader is not read_beir:
        found["ir_datasets"] = version("ir-datasets")
    return fingerprint(found)


def _files_fingerprint(path: Path) -> str:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check data.source and data.options")
    return fingerprint_path(path)


def _loader(source: str) -> tuple[Callable[..., Splits], Any]:
    """The function that reads a source, and its first argument (None: it has none)."""
    if source in DATASETS:
        return DATASETS[source], None
    if source.startswith(PREFIX):
        return read_ir_dataset, source.removeprefix(PREFIX)
    path = Path(source).expanduser()
    if path.exists():
        return read_beir, path
    if "/" in source or source.startswith((".", "~")) or path.suffix:
        raise DataError(f"{source}: no such folder or zip; check data.source")
    raise DataError(
        f"unknown data source {source!r}; {nearest(source, list(DATASETS))}; or {PREFIX}ID, "
        "or the path of a folder or zip in BEIR layout"
    )


def _call(loader: Callable[..., Splits], source: str, first: Any, options: dict[str, Any]) -> Splits:
    allowed = _options_of(loader)
    mistakes = [f"{name}: unknown option; {nearest(name, list(allowed))}" for name in options if name not in allowed]
    checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True, strict=False))(loader)
    try:
        if not mistakes:
            return checked(**options) if first is None else checked(first, **options)
    except ValidationError as error:
        if error.title != getattr(loader, "__name__", error.title):
            raise
        for detail in error.errors():
            name = ".".join(map(str, detail["loc"]))
            mistakes.append(f"{name}: {detail['msg']}, not {detail['input']!r}")
    raise DataError("\n  ".join([f"data.options of {source!r}:", *mistakes]))


def _options_of(loader: Callable[..., Splits]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(loader).parameters
    return {name: each for name, each in parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}


def _with_seed(source: str, options: dict[str, Any], seed: int) -> dict[str, Any]:
    loader, _ = _loader(source)
    return {"seed": seed, **options} if "seed" in _options_of(loader) else dict(options)


def _counts(data: Splits, held_out: list[str]) -> dict[str, Any]:
    return {
        "name": data.name,
        "documents": data.corpus.num_rows,
        "queries": {split: len(data.qrels[split]["query_id"].unique()) for split in SPLITS if split in data.qrels},
        "judgements": {split: data.qrels[split].num_rows for split in SPLITS if split in data.qrels},
        "held_out": held_out,
    }
