"""A source's name and its options, checked, all mistakes at once, before anything is read."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from ranker.data.copies import open_copy
from ranker.data.datasets import DATASETS, FETCHED
from ranker.data.errors import DataError
from ranker.data.formats.hub import PREFIX as HUB_PREFIX
from ranker.data.formats.hub import open_hub
from ranker.data.ir_sets import PREFIX, open_ir_dataset
from ranker.data.paths import format_options, known_formats, open_path
from ranker.data.source import ExampleSource, Source
from ranker.data.store import Reading
from ranker.registry import nearest

Opened = Source | ExampleSource
_READING = frozenset(field.name for field in fields(Reading))


def open_source(source: str, **options: Any) -> Opened:
    """A source that has been recognised and not read; the options of Reading are not its own.

    Raises:
        DataError: on an unknown source or option.
    """
    return opener_of(source, options)()


def opener_of(source: str, options: Mapping[str, Any]) -> Callable[..., Opened]:
    """``opener(seed)`` opens the source with its options, which are checked now, all at once.

    Raises:
        DataError: on an unknown source, unknown options, or values that cannot be.
    """
    loader, first = _loader(source, options)
    allowed = _keywords(loader)
    if loader in (open_path, open_copy):
        allowed = {**allowed, **_format_keywords(options.get("format"))}
    if loader is open_copy:
        allowed = {**allowed, **_keywords(DATASETS[source])}
    own = {name: value for name, value in options.items() if name in allowed}
    known = [*allowed, *_READING]
    mistakes = [f"{name}: unknown option; {nearest(name, known)}" for name in options if name not in known]
    reading = {name: value for name, value in options.items() if name in _READING}
    mistakes += _wrong_values(reading, inspect.signature(Reading).parameters)
    mistakes += _wrong_values({name: value for name, value in own.items() if name not in reading}, allowed)
    if mistakes:
        raise DataError("\n  ".join([f"data.options of {source!r}:", *mistakes]))

    Reading(**reading)

    def opened(seed: int = 0) -> Opened:
        seeded = {"seed": seed, **own} if "seed" in allowed else own
        found: Opened = loader(*first, **seeded)
        return found

    return opened


def path_of(source: str) -> Path | None:
    """The path that a source is; None where it is a name.

    Raises:
        DataError: where it is neither.
    """
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


def _loader(source: str, options: Mapping[str, Any]) -> tuple[Callable[..., Opened], tuple[Any, ...]]:
    """The function that opens a source, and its positional arguments."""
    path = path_of(source)
    if path is not None:
        return open_path, (path,)
    if source.startswith(PREFIX):
        return open_ir_dataset, (source.removeprefix(PREFIX),)
    if source.startswith(HUB_PREFIX):
        return open_hub, (source.removeprefix(HUB_PREFIX),)
    if options.get("path") is not None and source in FETCHED:
        return open_copy, (source,)
    return DATASETS[source], ()


def _keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters
    return {name: each for name, each in parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}


def _format_keywords(name: str | None) -> dict[str, inspect.Parameter]:
    """Options of the format that is named, or of any."""
    formats = known_formats()
    names = [name] if name in formats else list(formats)
    return {key: each for known in names for key, each in format_options(known).items()}


def _wrong_values(options: Mapping[str, Any], allowed: Mapping[str, inspect.Parameter]) -> list[str]:
    """What is wrong with the values, by the annotations of the parameters that take them."""

    def only_checked(**kwargs: Any) -> None:
        pass

    named = {name: allowed[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in options}
    only_checked.__signature__ = inspect.Signature(list(named.values()))  # type: ignore[attr-defined]
    only_checked.__annotations__ = {name: each.annotation for name, each in named.items()}
    # Strict: what is checked is not what is used, and the word "false" would count as true.
    strict = validate_call(config=ConfigDict(arbitrary_types_allowed=True, strict=True))
    try:
        strict(only_checked)(**options)
    except ValidationError as error:
        return [
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}, not {detail['input']!r}"
            for detail in error.errors()
        ]
    return []
