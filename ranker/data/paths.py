"""A path as a source: which format its files are in is seen from them, or said."""

import inspect
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ranker.data.errors import DataError
from ranker.data.files import DataFiles, OnInvalid, find_files
from ranker.data.source import FORMATS, ExampleSource, Format, Source
from ranker.registry import nearest

# Format -> the module that registers it, in the order in which they are asked whether they recognise a data set: what
# says most about itself comes first.
_HOMES = {
    "hub": "hub",
    "parquet": "parquet",
    "beir": "beir",
    "msmarco": "msmarco",
    "trec": "trec_format",
    "flagembedding": "example_files",
    "tevatron": "example_files",
    "sentence-transformers": "example_files",
}


def known_formats() -> dict[str, Format]:
    """Every format by its name."""
    for home in _HOMES.values():
        import_module(f"ranker.data.formats.{home}")
    return {name: FORMATS[name] for name in (*_HOMES, *FORMATS)}


def open_path(
    path: str | Path, *, format: str | None = None, encoding: str = "utf-8", on_invalid: OnInvalid = "error",
    **options: Any,
) -> Source | ExampleSource:  # fmt: skip
    """A folder, zip or file as a source; nothing is read yet but the first lines.

    Args:
        format: a name in FORMATS. None: the first that recognises the files.
        encoding: a codec of Python's. on_invalid: ``error``, or ``replace`` for U+FFFD in place of invalid bytes.
        options: of the format's own ``open``.

    Raises:
        DataError: where there is nothing, or nothing that a format knows.
    """
    files = unwrapped(find_files(Path(path).expanduser().absolute()).read_as(encoding, on_invalid), format)
    recognised = any(entry.recognise(files) for entry in known_formats().values())
    if format is None and {"layout", "columns"} & options.keys() and not recognised:
        # Columns of other names are recognised when they are renamed, which every format of examples does.
        format = options["layout"] if options.get("layout") in _HOMES else "sentence-transformers"
    name, entry = chosen_format(files, format)
    unknown = [option for option in options if option not in format_options(name)]
    if unknown:
        has = ", ".join(format_options(name)) or "no options"
        raise DataError(f"{path}: is in the format {name}, which has {has}; leave {', '.join(unknown)} out")
    return entry.open(files, **options)


def unwrapped(files: DataFiles, format: str | None) -> DataFiles:
    """The same; or, where they are in no known format and all lie in one folder, the files as seen from there."""
    names = [format] if format in known_formats() else list(known_formats())
    folders = {name.partition("/")[0] if "/" in name else "" for name in files.entries}
    if len(folders) != 1 or "" in folders or any(known_formats()[name].recognise(files) for name in names):
        return files
    (folder,) = folders
    cut = {name.removeprefix(f"{folder}/"): file for name, file in files.entries.items()}
    entries = {name: replace(file, name=name) for name, file in cut.items()}
    where = str(Path(files.where) / folder) if Path(files.where).is_dir() else files.where
    inner = unwrapped(replace(files, where=where, entries=entries), format)
    return inner if any(known_formats()[name].recognise(inner) for name in names) else files


def chosen_format(files: DataFiles, name: str | None) -> tuple[str, Format]:
    """The format of this name, or the first that recognises the files.

    Raises:
        DataError: naming what was found and what each format looks like.
    """
    formats = known_formats()
    if name is not None and name not in formats:
        raise DataError(f"unknown format {name!r}; {nearest(name, list(formats))}")
    if name is not None:
        return name, formats[name]
    for each, entry in formats.items():
        if entry.recognise(files):
            return each, entry
    from ranker.data.formats.example_files import why_no_examples

    layouts = "\n".join(f"  {each}: {entry.layout}" for each, entry in formats.items())
    reason = f" ({why})" if (why := why_no_examples(files)) else ""
    raise DataError(f"{files.where}: no known format in {files.listing()}{reason}; known are\n{layouts}")


def format_options(name: str) -> dict[str, inspect.Parameter]:
    """The keyword arguments of a format's ``open``."""
    parameters = inspect.signature(FORMATS[name].open).parameters
    return {key: each for key, each in parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}
