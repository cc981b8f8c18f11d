import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import pytest

from ranker.data.errors import DataError, Mistakes
from ranker.data.files import DataFile, find_files
from ranker.data.first_bytes import without_mark

TEXT = b"1\tcanaries sing\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (gzip.compress(TEXT, mtime=0), "is packed with gzip; call it FILE.gz"),
        (bz2.compress(TEXT), "is packed with bzip2; unpack it"),
        (lzma.compress(TEXT), "is packed with xz; unpack it"),
        (b"\x1f\x9d\x90" + TEXT, "is packed with compress; unpack it"),
        (TEXT.decode().encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"1\ta\r2\tb\r", "its lines end with a carriage return alone; write line feeds"),
    ],
)
def test_what_is_no_text_is_said_with_its_remedy(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "collection.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"collection.tsv: {problem}"):
        list(DataFile(path.name, str(path)).lines(Mistakes("here")))


def test_a_carriage_return_inside_or_at_the_end_of_text_stays() -> None:
    assert without_mark(b"\xef\xbb\xbf1\ta\rb\n", "here") == b"1\ta\rb\n"
    assert without_mark(b"1\ta\r", "here") == b"1\ta\r"


def test_an_encrypted_zip_is_a_mistake_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "secret.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("collection.tsv", TEXT)
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag that says: encrypted
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)
    mistakes = Mistakes("here")
    (file,) = find_files(path).entries.values()
    assert file.head() == "" and not list(file.lines(mistakes))
    assert "is encrypted" in mistakes.found[0]


@pytest.mark.parametrize(
    ("name", "problem"), [("birds.zip", "not a readable zip; copy it again"), ("birds.tar.gz", "tar; unpack it")]
)
def test_archives_that_cannot_be_read_say_what_to_do(name: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match=problem):
        find_files(tmp_path / name)
