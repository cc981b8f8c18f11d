"""The files of a data set by name, whether they lie in a folder or in a zip, gzipped or not, read a block at a time.

Lines end with a line feed; a carriage return before it and a byte order mark at the start of a file are no text.
"""

import codecs
import gzip
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal

from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.first_bytes import packed_as, without_mark

# What one task reads of a file that can be cut, and what it holds of it at once.
SPAN_BYTES = 64 * 2**20
BLOCK_BYTES = 4 * 2**20
HEAD_BYTES = 256 * 2**10

OnInvalid = Literal["error", "replace"]
# What a packed file raises that is cut, damaged, encrypted or packed in a way that Python does not know.
UNREADABLE = (EOFError, OSError, zipfile.BadZipFile, zlib.error, RuntimeError)


@dataclass(frozen=True)
class Span:
    """The lines that begin at a byte from ``start`` on and before ``end``. ``end`` None: to the end of the file."""

    start: int = 0
    end: int | None = None


WHOLE = Span()


@dataclass(frozen=True)
class Line:
    """A line without its end, and where it stands; lines that are blank are not given.

    Args:
        number: counted from 1 at the start of the span. place: ``FILE, line N``, found only when it is asked for.
    """

    text: str
    number: int
    file: "DataFile"
    span: Span = WHOLE

    @property
    def place(self) -> str:
        """For an error message."""
        return self.file.place(self.number, self.span)


@dataclass(frozen=True)
class DataFile:
    """One file of a data set. It can be sent to another process: it is opened there.

    Args:
        name: relative to the data set. path: of the file, or of the zip that holds it as ``member``.
        encoding: a codec of Python's in which a line feed is one byte 0x0A. on_invalid: what happens to bytes that are
            not in that encoding; ``replace`` puts U+FFFD there.
    """

    name: str
    path: str
    member: str = ""
    encoding: str = "utf-8"
    on_invalid: OnInvalid = "error"

    @property
    def where(self) -> str:
        """For an error message."""
        return f"{self.path}/{self.member}" if self.member else self.path

    @property
    def is_gzip(self) -> bool:
        """By its name."""
        return self.name.endswith((".gz", ".GZ"))

    @property
    def num_bytes(self) -> int:
        """Unpacked size; that of the packed file where only reading it all would tell."""
        if not self.member:
            return Path(self.path).stat().st_size
        return _archive(self.path, Path(self.path).stat().st_mtime_ns).getinfo(self.member).file_size

    def spans(self, size: int | None = None) -> list[Span]:
        """Spans of about ``size`` bytes (None: SPAN_BYTES) that together are the file; one if it cannot be cut."""
        size = size or SPAN_BYTES
        if self.member or self.is_gzip or self.num_bytes <= size:
            return [WHOLE]
        return [Span(start, start + size) for start in range(0, self.num_bytes, size)]

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Its bytes, unpacked."""
        with self._packed() as stream:
            if self.is_gzip:
                with gzip.open(stream, "rb") as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield stream

    @contextmanager
    def _packed(self) -> Iterator[IO[bytes]]:
        if self.member:
            with _archive(self.path, Path(self.path).stat().st_mtime_ns).open(self.member) as stream:
                yield stream
        else:
            with Path(self.path).open("rb") as stream:
                yield stream

    def blocks(self, mistakes: Mistakes, span: Span = WHOLE) -> Iterator[tuple[int, bytes]]:
        """(number of its first line in the span, whole lines as bytes), about BLOCK_BYTES each."""
        number = 1
        try:
            with self.open() as stream:
                for block in _whole_lines(stream, span):
                    if number == 1 and not span.start:
                        block = without_mark(block, self.where)
                    yield number, block
                    number += block.count(b"\n")
        except UNREADABLE as error:
            place = f"{self.where}, after line {number - 1}"
            mistakes.add(place, f"cannot be read further ({error}); copy the file again")

    def lines(self, mistakes: Mistakes, span: Span = WHOLE) -> Iterator[Line]:
        """Every line of the span that is not blank."""
        for first, block in self.blocks(mistakes, span):
            yield from self.lines_of(block, first, mistakes, span)

    def lines_of(self, block: bytes, first: int, mistakes: Mistakes, span: Span = WHOLE) -> Iterator[Line]:
        """The lines of one of :meth:`blocks` that are not blank."""
        for number, raw in enumerate(block.split(b"\n"), first):
            if raw.endswith(b"\r"):
                raw = raw[:-1]
            text = self.decode(raw, mistakes, number, span)
            if text is not None and text and not text.isspace():
                yield Line(text, number, self, span)

    def decode(self, raw: bytes, mistakes: Mistakes, number: int, span: Span = WHOLE) -> str | None:
        """The bytes of a line as text; None, and a mistake, where they are not in the file's encoding."""
        try:
            return raw.decode(self.encoding, "strict" if self.on_invalid == "error" else "replace")
        except UnicodeDecodeError as error:
            name = self.encoding.upper()
            remedy = "save the file as UTF-8, or say what it is with the option encoding=latin-1 (or cp1252, ...), or "
            mistakes.add(
                Line("", number, self, span),
                f"not {name} at byte {error.start}: {shown(raw)}; {remedy}on_invalid=replace",
            )
            return None

    def place(self, number: int, span: Span = WHOLE) -> str:
        """``FILE, line N`` of the ``number``-th line of a span; the lines before the span are counted now."""
        return f"{self.where}, line {number + _count_lines(self, span.start)}"

    def packed_as(self) -> str | None:
        """What it is packed with, and what to do about it; None where it may be text."""
        try:
            with self.open() as stream:
                return packed_as(stream.read(8))
        except UNREADABLE as error:
            return f"cannot be read ({error}); copy the file again"

    def head(self, size: int = HEAD_BYTES) -> str:
        """The first whole lines, for a look at what the file is; undecodable bytes are replaced, nothing is raised."""
        try:
            with self.open() as stream:
                raw = stream.read(size)
        except UNREADABLE:
            return ""
        cut = raw if len(raw) < size or b"\n" not in raw else raw[: raw.rindex(b"\n") + 1]
        return cut.removeprefix(codecs.BOM_UTF8).decode(self.encoding, "replace").replace("\r\n", "\n")


@lru_cache(maxsize=4)
def _archive(path: str, changed: int) -> zipfile.ZipFile:
    """A zip, kept open: its table of contents is long where it holds a file a document."""
    return zipfile.ZipFile(path)


def _whole_lines(stream: IO[bytes], span: Span) -> Iterator[bytes]:
    position = span.start
    if span.start:
        # A line belongs to the span that it begins in: step to the first beginning at ``start`` or behind it.
        stream.seek(span.start - 1)
        position = span.start - 1 + len(stream.readline())
    while span.end is None or position < span.end:
        left = BLOCK_BYTES if span.end is None else min(BLOCK_BYTES, span.end - position)
        block = stream.read(left)
        if not block:
            return
        if not block.endswith(b"\n"):
            block += stream.readline()
        position += len(block)
        yield block


def _count_lines(file: DataFile, end: int) -> int:
    """Line feeds before byte ``end`` of a file, which is where the lines of a span begin to be counted."""
    if not end:
        return 0
    count, left, last = 0, end - 1, b""
    with file.open() as stream:
        while left and (block := stream.read(min(left, BLOCK_BYTES))):
            count, left = count + block.count(b"\n"), left - len(block)
        last = stream.readline()
    return count + last.count(b"\n")


@dataclass(frozen=True)
class DataFiles:
    """What a data set consists of.

    Args:
        where: the folder, zip or file. entries: relative name -> file.
    """

    where: str
    entries: dict[str, DataFile]

    def one(self, name: str, remedy: str) -> DataFile:
        """The file of this name, gzipped or not.

        Raises:
            DataError: listing what was found.
        """
        found = self.get(name)
        if found is None:
            raise DataError(f"{self.where}: no {name} among {self.listing()}; {remedy}")
        return found

    def get(self, name: str) -> DataFile | None:
        """The file of this name, gzipped or not; None where there is none."""
        return self.entries.get(name) or self.entries.get(f"{name}.gz")

    def match(self, *patterns: str) -> list[DataFile]:
        """Files whose name matches one of the patterns, gzipped ones too, in name order."""
        names = sorted(n for n in self.entries if any(fnmatch(n.removesuffix(".gz"), pattern) for pattern in patterns))
        return [self.entries[name] for name in names]

    def listing(self) -> str:
        """The first ten names, for an error message."""
        names = sorted(self.entries)
        return (", ".join(names[:10]) + (", ..." if len(names) > 10 else "")) or "no files"

    def read_as(self, encoding: str, on_invalid: OnInvalid) -> "DataFiles":
        """The same files, decoded otherwise.

        Raises:
            DataError: on an encoding that Python does not know, or in which a line feed is not one byte.
        """
        try:
            plain = "\n".encode(encoding) == b"\n"
        except LookupError:
            raise DataError(f"encoding {encoding!r} is not known; such as utf-8, latin-1, cp1252, shift_jis") from None
        if not plain:
            raise DataError(f"encoding {encoding!r}: save the files as UTF-8 (iconv -f {encoding} -t UTF-8 FILE)")
        read = {name: replace(file, encoding=encoding, on_invalid=on_invalid) for name, file in self.entries.items()}
        return replace(self, entries=read)


def find_files(path: Path) -> DataFiles:
    """The files of a folder or zip, or the one file; in a zip, one folder around all of them is looked through.

    Hidden files are left out.

    Raises:
        DataError: where there is nothing.
    """
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if file.is_file()]
        return DataFiles(str(path), {n: DataFile(n, str(path / n)) for n in names if not _hidden(n)})
    if not path.exists():
        raise DataError(f"{path}: no such file, folder or zip; check data.source")
    if not zipfile.is_zipfile(path):
        if path.suffix.lower() == ".zip":
            raise DataError(f"{path}: not a readable zip; copy it again")
        if re.search(r"\.(tar(\.\w+)?|tgz|tbz2?|txz)$", path.name, re.IGNORECASE):
            raise DataError(f"{path}: an archive of tar; unpack it (tar -xf FILE) and name the folder")
        return DataFiles(str(path), {path.name: DataFile(path.name, str(path))})
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if not name.endswith("/") and not _hidden(name)]
    roots = {name.partition("/")[0] for name in members}
    root = f"{roots.pop()}/" if len(roots) == 1 and all("/" in name for name in members) else ""
    return DataFiles(str(path), {m[len(root) :]: DataFile(m[len(root) :], str(path), m) for m in members})


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
