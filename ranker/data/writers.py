"""A folder of files that is written whole or not at all."""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.errors import DataError, shown
from ranker.data.splits import Splits


class WritingFolder:
    """Checks what a format cannot say, then collects files beside ``folder`` and gives it its name at the end.

    Args:
        folder: must not exist, or be empty. data: what is written. forbidden: characters that no id may hold.

    Raises:
        DataError: where the folder holds something, or ids hold such characters; nothing is written.
    """

    def __init__(self, folder: Path, data: Splits, *, forbidden: str = "") -> None:
        self.folder, self.data = folder.expanduser().absolute(), data
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise DataError(f"{folder}: is there already; name a folder that is not, or remove it")
        if forbidden:
            check_ids(data, forbidden)
        self._work = self.folder.with_name(f".{self.folder.name}.partial")

    def __enter__(self) -> "WritingFolder":
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            if self.folder.exists():
                self.folder.rmdir()
            self._work.rename(self.folder)
        else:
            shutil.rmtree(self._work, ignore_errors=True)

    @contextmanager
    def file(self, name: str) -> Iterator[TextIO]:
        """A text file in the folder, UTF-8, lines ending with a line feed."""
        with self.path(name).open("w", encoding="utf-8", newline="\n") as stream:
            yield stream

    def path(self, name: str) -> Path:
        """Where a file is to be written that is no text."""
        path = self._work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def documents(self) -> Iterator[dict[str, Any]]:
        """Rows of CORPUS, a block at a time in memory."""
        for block in self.data.corpus.blocks():
            yield from block.to_pylist()


def check_ids(data: Splits, forbidden: str) -> None:
    """Find ids that a format cannot say.

    Raises:
        DataError: counting them and naming some.
    """
    pattern = "[" + "".join(f"\\x{ord(character):02x}" for character in forbidden) + "]"
    bad: list[str] = []
    for column in _id_columns(data):
        bad += column.filter(pc.match_substring_regex(column, pattern)).unique().to_pylist()
    if bad:
        named = {"\t": "a tab", "\n": "a line feed", " ": "a space"}
        what = ", ".join(named[c] for c in forbidden if c in named)
        some = shown(bad[:5])
        raise DataError(f"{len(bad)} ids hold {what}, which this format cannot say: {some}; rename them")


def _id_columns(data: Splits) -> Iterable[pa.ChunkedArray]:
    for block in data.corpus.blocks(["doc_id"]):
        yield block["doc_id"]
    yield data.queries["query_id"]
    for table in data.qrels.values():
        yield table["query_id"]
        yield table["doc_id"]


def json_line(record: dict[str, Any]) -> str:
    """An object as a line of JSON; other letters than ASCII stay as they are."""
    return json.dumps(record, ensure_ascii=False) + "\n"
