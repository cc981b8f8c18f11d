"""What decides the content of a source: the same fingerprint means that nothing has to be read again."""

import platform
from collections.abc import Mapping
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from ranker.data.errors import DataError
from ranker.data.formats.hub import PREFIX as HUB_PREFIX
from ranker.data.formats.hub import snapshot
from ranker.data.opening import path_of
from ranker.manifest import fingerprint, fingerprint_files

# Counted up when files are read otherwise than before, so that what was read before is not taken for the same.
READER = 1


def source_fingerprint(source: str, options: Mapping[str, Any], *, quick: bool = False) -> str:
    """What decides the content of a source besides its options: files, package versions, a commit of the hub, its id.

    Args:
        quick: of files only their sizes and times; then the same files elsewhere have another fingerprint.

    Raises:
        DataError: where a file that is named is not there, or a data set of the hub is neither cached nor fetched.
    """
    path = path_of(source)
    found: dict[str, Any] = {"source": source if path is None else path.name, "reader": READER}
    for place in [path, options.get("path"), *(options.get("roots") or [])]:
        if place is not None:
            found[f"files {len(found)}"] = _files_fingerprint(Path(place).expanduser(), quick)
    if source == "pydocs" and not options.get("roots"):
        found["python"] = platform.python_version()
        found["packages"] = sorted((str(d.metadata["Name"]).lower(), str(d.version)) for d in distributions())
    elif source.startswith(HUB_PREFIX):
        found["commit"] = _hub_fingerprint(source.removeprefix(HUB_PREFIX), options, quick)
    elif path is None:
        found["ir_datasets"] = version("ir-datasets")
    return fingerprint(found)


def _hub_fingerprint(name: str, options: Mapping[str, Any], quick: bool) -> str:
    folder = Path(name).expanduser()
    return _files_fingerprint(folder, quick) if folder.is_dir() else snapshot(name, options.get("revision")).name


def _files_fingerprint(path: Path, quick: bool) -> str:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check data.source and data.options")
    # BEIR on the hub keeps its judgements in a folder beside the documents.
    places = [place for place in (path, path.with_name(f"{path.name}-qrels")) if place.exists()]
    if not quick:
        return fingerprint([fingerprint_files(place) for place in places])
    files = [file for place in places for file in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    stats = [(str(file.absolute()), file.stat()) for file in files if file.is_file()]
    return fingerprint([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
