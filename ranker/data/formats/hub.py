"""Data sets of the Hugging Face hub, by id or as a local snapshot folder.

The library `datasets` says which files belong to which configuration and split (the YAML of README.md, or the hub's
naming rules); the files themselves are read by the readers of the house, so that ids stay strings and every mistake has
its file and line. https://huggingface.co/docs/hub/datasets-data-files-configuration
"""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ranker.data.errors import DataError, Mistakes
from ranker.data.files import DataFile, DataFiles, OnInvalid
from ranker.data.formats.beir import document_pieces, read_qrels, read_queries
from ranker.data.formats.json_qrels import read_json_qrels
from ranker.data.formats.parquet import NAMES, distinct, parquet_corpus, parquet_table
from ranker.data.formats.record_files import suffix_of
from ranker.data.pieces import Piece
from ranker.data.source import FORMATS, ExampleSource, Format, Source
from ranker.data.splits import Splits
from ranker.registry import nearest
from ranker.schemas import QRELS, QUERIES

log = logging.getLogger(__name__)

PREFIX = "hf:"
LAYOUT = "a snapshot of a hub data set: README.md with its configurations, or data/train-00000-of-00001.parquet"
# What a repository may hold that is data; weights and pictures are not fetched.
_PATTERNS = ["*.md", "*.parquet", "*.json", "*.jsonl", "*.csv", "*.tsv", "*.gz"]
_QRELS = ("qrels", "default")
_SPLITS = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "test": "test"}
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.\w+)")

Configuration = dict[str, list[DataFile]]


@dataclass(frozen=True)
class Place:
    """A snapshot folder, what the user called it, and how its files of text are read."""

    folder: Path
    name: str
    encoding: str
    on_invalid: OnInvalid


def open_hub(
    name: str, *, config: str | None = None, revision: str | None = None, layout: str | None = None,
    columns: dict[str, str] | None = None, encoding: str = "utf-8", on_invalid: OnInvalid = "error",
) -> Source | ExampleSource:  # fmt: skip
    """A data set of the hub, or a folder that is a snapshot of one.

    Two shapes are known: a collection (configurations ``corpus``, ``queries`` and ``qrels`` or ``default``, as MTEB
    and NanoBEIR have them; BEIR's judgements lie in a repository of their own, ``NAME-qrels``), and training examples
    in any layout that :mod:`ranker.data.formats.layouts` knows.

    Args:
        name: ``ORG/NAME``, or the path of a folder. config: a configuration of training examples; needed where there
            are several. revision: branch, tag or commit on the hub.
        layout: of the examples. None: seen from their columns. columns: our name -> theirs, where they have others.
        encoding, on_invalid: of files of text, see :class:`ranker.data.files.DataFile`.

    Raises:
        DataError: where it is neither there nor fetched, on an unknown configuration, or files of another shape.
    """
    local = Path(name).expanduser().absolute()
    place = Place(local if local.is_dir() else snapshot(name, revision), name, encoding, on_invalid)
    _check_whole(place)
    configurations = _configurations(place)
    if ("" if config is None else config) in _collections(configurations):
        return _as_collection(place, configurations, "" if config is None else f"{config}-")
    from ranker.data.formats.example_files import example_source

    chosen = _chosen(configurations, config, name)
    return example_source(_plain(name), _files(place, chosen), layout=layout, columns=columns)


def snapshot(name: str, revision: str | None = None) -> Path:
    """The folder of a hub data set: its newest commit, or, without a network, what the hub's cache has of it.

    Raises:
        DataError: saying where it was looked for and how to fetch it or point at a copy.
    """
    from huggingface_hub import constants, snapshot_download

    options: dict[str, Any] = {"repo_type": "dataset", "revision": revision, "allow_patterns": _PATTERNS}
    problem: Exception | None = None
    if not constants.HF_HUB_OFFLINE:
        try:
            return Path(snapshot_download(name, etag_timeout=6, **options))
        except Exception as error:  # of the network, of the hub, of the disk
            problem = error
    try:
        folder = Path(snapshot_download(name, local_files_only=True, **options))
    except Exception as missing:  # not in the cache, or no such name: the hub knows
        problem = problem or missing
    else:
        log.warning("hf:%s: read from the hub's cache, %s; the hub may have a newer one", name, folder.name[:12])
        return folder
    raise DataError(
        f"hf:{name} is not in {constants.HF_HUB_CACHE} and could not be fetched ({type(problem).__name__}: "
        f"{str(problem).splitlines()[0][:200] if str(problem) else 'no network'}). On a machine with a network run "
        f"`hf download --repo-type dataset {name}` and copy that folder here (HF_HUB_CACHE names another place), "
        "or point data.source at a local snapshot folder"
    ) from problem


def _check_whole(place: Place) -> None:
    """Find files of a set (``train-00001-of-00003.parquet``) that are not there: a download may have been cut.

    Raises:
        DataError: naming some.
    """
    found: dict[tuple[str, str, int], set[int]] = {}
    for file in place.folder.rglob("*-of-*"):
        if shard := _SHARD.fullmatch(file.relative_to(place.folder).as_posix()):
            found.setdefault((shard[1], shard[4], int(shard[3])), set()).add(int(shard[2]))
    lost = [
        f"{stem}-{number:05d}-of-{total:05d}{suffix}"
        for (stem, suffix, total), numbers in found.items()
        for number in sorted(set(range(total)) - numbers)
    ]
    if lost:
        raise DataError(
            f"{place.folder}: {len(lost)} files of the set are missing: {', '.join(lost[:3])}; fetch it again "
            f"(hf download --repo-type dataset {place.name})"
        )


def _configurations(place: Place) -> dict[str, None]:
    from datasets import get_dataset_config_names

    try:
        return dict.fromkeys(get_dataset_config_names(str(place.folder)))
    except Exception as error:  # of many kinds: no data files, broken YAML
        raise DataError(f"{place.name}: no data set of the hub in {place.folder} ({error}); {LAYOUT}") from error


def _files(place: Place, config: str) -> Configuration:
    """Split -> its files, in our split names."""
    from datasets import load_dataset_builder

    found: Configuration = {}
    data_files = load_dataset_builder(str(place.folder), config).config.data_files or {}
    for split, paths in data_files.items():
        ours = _SPLITS.get(str(split), str(split))
        for path in map(str, paths):
            name = os.path.relpath(path, place.folder)
            file = DataFile(name, path, encoding=place.encoding, on_invalid=place.on_invalid)
            found.setdefault(ours, []).append(file)
    return found


def _chosen(configurations: Mapping[str, None], config: str | None, name: str) -> str:
    collections = _collections(configurations)
    parts = {f"{each}-{part}" for each in collections for part in ("corpus", "queries", "qrels")}
    names = [*(each for each in configurations if each not in parts), *collections]
    if config is None and len(names) > 1:
        raise DataError(f"{name}: has the configurations {names}; choose one with data.options.config")
    if config is not None and config not in names:
        raise DataError(f"{name}: no configuration {config!r}; {nearest(config, names)}")
    return config or names[0]


def _collections(configurations: Mapping[str, None]) -> list[str]:
    """What stands before ``-corpus`` and ``-queries``: a language of MTEB; empty where nothing does."""
    found = (each.removesuffix("corpus").removesuffix("-") for each in configurations if each.endswith("corpus"))
    return [each for each in found if (f"{each}-queries" if each else "queries") in configurations]


def _as_collection(place: Place, configurations: Mapping[str, None], prefix: str) -> Source:
    by_split = _files(place, f"{prefix}corpus")
    corpus = [file for files in by_split.values() for file in files]
    queries = [file for files in _files(place, f"{prefix}queries").values() for file in files]
    judged = next((each for each in (f"{prefix}{each}" for each in _QRELS) if each in configurations), None)
    qrels = _files(place, judged) if judged is not None else _sibling_qrels(place)
    if list(qrels) == ["train"] and not any(map(_has_grades, qrels["train"])):
        # NanoBEIR lists what is relevant, for measuring; its split is called train because the hub wants a name.
        qrels = {"test": qrels["train"]}
    return Source(
        name=_plain(place.name),
        format="hub",
        corpus=_corpus_pieces(corpus),
        queries=lambda mistakes: _queries(queries, mistakes),
        qrels=lambda mistakes: {split: _qrels(files, mistakes) for split, files in qrels.items()},
        corpus_name=f"the configuration {prefix}corpus",
        queries_name=f"the configuration {prefix}queries",
        # A corpus of its own for each split holds the same documents again.
        same_id_same_text=len(by_split) > 1,
    )


def _has_grades(file: DataFile) -> bool:
    if not file.path.endswith(".parquet"):
        return True
    return bool(set(NAMES["relevance"]) & set(pq.read_schema(file.path).names))


def _sibling_qrels(place: Place) -> Configuration:
    """BEIR on the hub keeps ``scifact`` and ``scifact-qrels`` apart."""
    beside = place.folder.with_name(f"{place.folder.name}-qrels")
    if Path(place.name).expanduser().is_dir() and not beside.is_dir():
        raise DataError(f"{place.folder}: no configuration qrels or default, and no folder {beside} beside it")
    name = f"{place.name}-qrels"
    other = replace(place, folder=beside if beside.is_dir() else snapshot(name), name=name)
    _check_whole(other)
    return _files(other, next(iter(_configurations(other))))


def _corpus_pieces(files: Sequence[DataFile]) -> list[Piece]:
    pieces: list[Piece] = []
    for file in files:
        if file.path.endswith(".parquet"):
            pieces += parquet_corpus([file])
        else:
            pieces += document_pieces(file)
    return pieces


def _queries(files: Sequence[DataFile], mistakes: Mistakes) -> pa.Table:
    tables = [
        parquet_table([file], QUERIES, mistakes) if file.path.endswith(".parquet") else read_queries(file, mistakes)
        for file in files
    ]
    return distinct(pa.concat_tables([QUERIES.empty_table(), *tables]), "the queries", mistakes)


def _qrels(files: Sequence[DataFile], mistakes: Mistakes) -> pa.Table:
    tables = [_reader_of(file)(file, mistakes) for file in files]
    return pa.concat_tables([QRELS.empty_table(), *tables])


def _reader_of(file: DataFile) -> Callable[[DataFile, Mistakes], pa.Table]:
    if file.path.endswith(".parquet"):
        return lambda file, mistakes: parquet_table([file], QRELS, mistakes)
    return read_json_qrels if suffix_of(file) in (".jsonl", ".ndjson", ".json") else read_qrels


def _plain(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def recognise_hub(files: DataFiles) -> bool:
    """Whether there is a README.md with configurations, or Parquet in ``data/``."""
    folder = Path(files.where)
    if not folder.is_dir():
        return False
    readme = files.get("README.md")
    return (readme is not None and "configs:" in readme.head()) or bool(files.match("data/*.parquet"))


def open_snapshot(
    files: DataFiles, *, config: str | None = None, layout: str | None = None, columns: dict[str, str] | None = None
) -> Source | ExampleSource:
    """A local snapshot folder; see :func:`open_hub`."""
    read = next(iter(files.entries.values()))
    return open_hub(
        files.where,
        config=config,
        layout=layout,
        columns=columns,
        encoding=read.encoding,
        on_invalid=read.on_invalid,
    )


def _not_written(folder: Path, data: Splits, lossy: bool) -> None:
    raise DataError("hub: write parquet (its files can be uploaded as they are), or a format of training examples")


FORMATS.register("hub")(Format(LAYOUT, recognise_hub, open_snapshot, _not_written))
