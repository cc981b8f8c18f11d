"""Every source of a collection by name, and the first stage: `prepare`.

A source is a name in DATASETS, ``ir_datasets:ID``, ``hf:ORG/NAME``, or the path of a folder, zip or file in a known
format (``ranker.data.source.FORMATS``).
"""

import inspect
import logging
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from ranker.config import Experiment
from ranker.data.datasets import DATASETS
from ranker.data.errors import DataError
from ranker.data.formats.hub import PREFIX as HUB_PREFIX
from ranker.data.formats.hub import open_hub
from ranker.data.ir_sets import PREFIX, open_ir_dataset
from ranker.data.leakage import shared_documents
from ranker.data.paths import format_options, known_formats, open_path
from ranker.data.source import ExampleSource, Source
from ranker.data.splits import Splits, hold_out_missing, rename_splits
from ranker.data.store import Reading, store_source
from ranker.data.stored import open_collection, open_splits, save_beside_corpus, save_collection
from ranker.manifest import Done, fingerprint, fingerprint_path, run_stage
from ranker.registry import nearest
from ranker.schemas import SPLITS, Collection

__all__ = ["DATASETS", "load", "load_splits", "open_collection", "open_source", "prepare", "save_collection"]

log = logging.getLogger(__name__)

_READING = {field.name for field in fields(Reading)}


def load(source: str, split: str = "test", **options: Any) -> Collection:
    """One split of a source, with the whole corpus; ``options`` as of :func:`load_splits`.

    Raises:
        DataError: on an unknown source, option or split, or on files that are not what they should be.
    """
    return load_splits(source, **options).collection(split)


def load_splits(source: str, **options: Any) -> Splits:
    """All splits of a source, under the source's own names, read once into the cache; documents stay on the disk.

    The cache is ``$RANKER_HOME`` (else ``~/.cache/ranker``), a folder a source and version; it may be deleted. What
    was read before is found there at once.

    Args:
        source: see this module.
        options: those of :class:`ranker.data.store.Reading` (``max_documents``, ``allow_missing``, ...), and of the
            source itself (``format``, ``encoding``, ...).

    Raises:
        DataError: as :func:`load`.
    """
    opener, inputs = _opener(source, options), {"source": source_fingerprint(source, options, quick=True)}

    def make(work: Path) -> dict[str, Any]:
        data = store_source(opener(), work, _reading(options))
        save_beside_corpus(work, data)
        return {"documents": data.corpus.num_rows}

    identity = {name: str(value) for name, value in options.items()}
    name = fingerprint({"source": source, "options": identity, **inputs})
    done = run_stage("load", cache_folder() / name, identity, inputs, make, wait=True)
    return open_splits(done.folder)


def cache_folder() -> Path:
    """Where sources are kept that were read.

    Raises:
        DataError: where nothing can be written there.
    """
    place = os.environ.get("RANKER_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ranker"
    folder = Path(place).expanduser() / "data"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error}); name another place in RANKER_HOME") from error
    return folder


def open_source(source: str, **options: Any) -> Source | ExampleSource:
    """A source that has been recognised and not read; the options of Reading are not its own.

    Raises:
        DataError: on an unknown source or option.
    """
    return _opener(source, options)()


def prepare(config: Experiment) -> Done:
    """Stage `data`: read the source, hold out the splits that it lacks, and store it as Parquet.

    Raises:
        DataError: on anything wrong with the source; nothing is left that looks whole.
    """
    data = config.data
    opener = _opener(data.source, data.options)

    def make(work: Path) -> dict[str, Any]:
        log.info("reading %s", data.source)
        loaded = store_source(opener(config.seed), work, _reading({"seed": config.seed, **data.options}), config.ray)
        names = {"train": data.train_split, "dev": data.dev_split, "test": data.test_split}
        cut, held_out = hold_out_missing(rename_splits(loaded, names), config.seed)
        if held_out:
            log.warning("%s has no %s split; held out from train", data.source, " and no ".join(held_out))
        save_beside_corpus(work, cut)
        outcome = _counts(cut, held_out)
        queries = ", ".join(f"{split} {count}" for split, count in outcome["queries"].items())
        log.info("%s: %d documents, judged queries: %s", data.source, outcome["documents"], queries)
        return outcome

    identity = {**data.identity(), "seed": config.seed}
    inputs = {"source": source_fingerprint(data.source, data.options)}
    return run_stage("data", config.folder("data"), identity, inputs, make)


def source_fingerprint(source: str, options: Mapping[str, Any], *, quick: bool = False) -> str:
    """What decides the content of a source besides its options: files, package versions, or its id.

    Args:
        quick: of files only their sizes and times; then the same files elsewhere have another fingerprint.
    """
    path = _path(source)
    found: dict[str, Any] = {"source": source if path is None else path.name}
    for place in [path, options.get("path"), *(options.get("roots") or [])]:
        if place is not None:
            found[f"files {len(found)}"] = _files_fingerprint(Path(place).expanduser(), quick)
    if source == "pydocs" and not options.get("roots"):
        found["python"] = platform.python_version()
        found["packages"] = sorted((str(d.metadata["Name"]).lower(), str(d.version)) for d in distributions())
    elif path is None:
        found["ir_datasets"] = version("ir-datasets")
    return fingerprint(found)


def _files_fingerprint(path: Path, quick: bool) -> str:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check data.source and data.options")
    if not quick:
        return fingerprint_path(path)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(file.absolute()), file.stat()) for file in files if file.is_file()]
    return fingerprint([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def _path(source: str) -> Path | None:
    """The path that a source is; None where it is a name."""
    if source in DATASETS or source.startswith((PREFIX, HUB_PREFIX)):
        return None
    path = Path(source).expanduser()
    if path.exists():
        return path
    if "/" in source or source.startswith((".", "~")) or path.suffix:
        raise DataError(f"{source}: no such file, folder or zip; check data.source")
    raise DataError(
        f"unknown data source {source!r}; {nearest(source, list(DATASETS))}; or {PREFIX}ID, {HUB_PREFIX}ORG/NAME, "
        "or the path of a folder, zip or file"
    )


def _opener(source: str, options: Mapping[str, Any]) -> Callable[..., Source | ExampleSource]:
    """``opener(seed)`` opens the source with its options, which are checked now, all at once."""
    loader, first = _loader(source)
    allowed = _keywords(loader)
    if loader is open_path:
        allowed = {**allowed, **_format_keywords(options.get("format"))}
    own = {name: value for name, value in options.items() if name in allowed}
    known = [*allowed, *_READING]
    mistakes = [f"{name}: unknown option; {nearest(name, known)}" for name in options if name not in known]
    mistakes += _mistakes_of(Reading, {name: options[name] for name in _READING & set(options)})
    mistakes += _mistakes_of(loader, own, first)
    if mistakes:
        raise DataError("\n  ".join([f"data.options of {source!r}:", *mistakes]))

    def opened(seed: int = 0) -> Source | ExampleSource:
        seeded = {"seed": seed, **own} if "seed" in allowed else own
        found: Source | ExampleSource = loader(*first, **seeded)
        return found

    return opened


def _loader(source: str) -> tuple[Callable[..., Source | ExampleSource], tuple[Any, ...]]:
    """The function that opens a source, and its positional arguments."""
    path = _path(source)
    if path is not None:
        return open_path, (path,)
    if source.startswith(PREFIX):
        return open_ir_dataset, (source.removeprefix(PREFIX),)
    if source.startswith(HUB_PREFIX):
        return open_hub, (source.removeprefix(HUB_PREFIX),)
    return DATASETS[source], ()


def _keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters
    return {name: each for name, each in parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}


def _format_keywords(name: str | None) -> dict[str, inspect.Parameter]:
    """Options of the format that is named, or of any."""
    formats = known_formats()
    names = [name] if name in formats else list(formats)
    return {key: each for known in names for key, each in format_options(known).items()}


def _mistakes_of(function: Callable[..., Any], options: Mapping[str, Any], first: tuple[Any, ...] = ()) -> list[str]:
    """What is wrong with the values of keyword arguments, by their annotations."""

    def only_checked(*args: Any, **kwargs: Any) -> None:
        pass

    only_checked.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    only_checked.__annotations__ = dict(inspect.get_annotations(function))
    try:
        validate_call(config=ConfigDict(arbitrary_types_allowed=True))(only_checked)(*first, **options)
    except ValidationError as error:
        return [
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}, not {detail['input']!r}"
            for detail in error.errors()
        ]
    return []


def _reading(options: Mapping[str, Any]) -> Reading:
    return Reading(**{name: options[name] for name in _READING & set(options)})


def _counts(data: Splits, held_out: list[str]) -> dict[str, Any]:
    return {
        "name": data.name,
        "documents": data.corpus.num_rows,
        "queries": {split: len(data.qrels[split]["query_id"].unique()) for split in SPLITS if split in data.qrels},
        "judgements": {split: data.qrels[split].num_rows for split in SPLITS if split in data.qrels},
        "held_out": held_out,
        "relevant_in_two_splits": shared_documents(data),
    }
