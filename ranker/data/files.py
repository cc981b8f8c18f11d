"""The files of a data set by name, whether they lie in a folder or in a zip, gzipped or not."""

import gzip
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from ranker.data.errors import DataError, Mistakes, shown

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class OpenFile:
    """One file of a data set, read line by line.

    Args:
        name: relative to the data set. path: for error messages. archive: the zip that holds it as ``member``.
    """

    name: str
    path: str
    archive: zipfile.ZipFile | None = None
    member: str = ""

    def lines(self, mistakes: Mistakes) -> Iterator[tuple[str, str]]:
        """``FILE, line N`` and the text of every line that is not blank; a byte order mark and CRLF are dropped."""
        number = 0
        try:
            with self._open() as stream:
                for number, raw in enumerate(stream, 1):
                    place = f"{self.path}, line {number}"
                    line = (raw.removeprefix(_BOM) if number == 1 else raw).rstrip(b"\r\n")
                    try:
                        text = line.decode("utf-8")
                    except UnicodeDecodeError as error:
                        mistakes.add(place, f"not UTF-8 at byte {error.start}: {shown(line)}; save the file as UTF-8")
                        continue
                    if text.strip():
                        yield place, text
        except (EOFError, OSError, zipfile.BadZipFile) as error:
            mistakes.add(f"{self.path}, after line {number}", f"cannot be read further ({error}); copy the file again")

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        with self.archive.open(self.member) if self.archive else Path(self.path).open("rb") as stream:
            if self.name.endswith(".gz"):
                with gzip.open(stream, "rb") as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield stream


@dataclass(frozen=True)
class DataFiles:
    """What a data set consists of.

    Args:
        where: the folder or zip. entries: relative name -> file.
    """

    where: str
    entries: dict[str, OpenFile]

    def one(self, name: str, remedy: str) -> OpenFile:
        """The file of this name, gzipped or not.

        Raises:
            DataError: listing what was found.
        """
        for candidate in (name, f"{name}.gz"):
            if candidate in self.entries:
                return self.entries[candidate]
        raise DataError(f"{self.where}: no {name} among {self.listing()}; {remedy}")

    def match(self, pattern: str) -> list[OpenFile]:
        """Files whose name matches, gzipped ones too, in name order."""
        names = sorted(name for name in self.entries if fnmatch(name.removesuffix(".gz"), pattern))
        return [self.entries[name] for name in names]

    def listing(self) -> str:
        """The first ten names, for an error message."""
        names = sorted(self.entries)
        return (", ".join(names[:10]) + (", ..." if len(names) > 10 else "")) or "no files"


@contextmanager
def open_files(path: Path) -> Iterator[DataFiles]:
    """The files of a folder or zip; in a zip, one folder around all of them is looked through.

    Raises:
        DataError: where there is nothing, or a file that is no zip.
    """
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if file.is_file()]
        yield DataFiles(str(path), {name: OpenFile(name, str(path / name)) for name in names})
    elif path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
            roots = {name.partition("/")[0] for name in members}
            root = f"{roots.pop()}/" if len(roots) == 1 and all("/" in name for name in members) else ""
            yield DataFiles(
                str(path), {m[len(root) :]: OpenFile(m[len(root) :], f"{path}/{m}", archive, m) for m in members}
            )
    elif path.exists():
        raise DataError(f"{path}: neither a folder nor a zip; name the folder or zip of a data set")
    else:
        raise DataError(f"{path}: no such folder or zip; check data.source")
