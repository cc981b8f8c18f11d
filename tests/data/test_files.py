import gzip
import zipfile
from pathlib import Path

import pytest

from ranker.data import files as module
from ranker.data.errors import DataError, Mistakes
from ranker.data.files import DataFile, find_files

LINES = ["first", "", "second, with é", "x" * 50, "  ", "last"]
GIVEN = [(1, "first"), (3, "second, with é"), (4, "x" * 50), (6, "last")]


def numbered(file: DataFile, mistakes: Mistakes | None = None) -> list[tuple[str, str]]:
    noted = mistakes or Mistakes("here")
    return [(line.place, line.text) for span in file.spans() for line in file.lines(noted, span)]


@pytest.mark.parametrize("size", range(1, 90, 7))
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_cut_anywhere_gives_the_same_lines_with_the_same_numbers(
    size: int, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPAN_BYTES", size)
    monkeypatch.setattr(module, "BLOCK_BYTES", 16)
    path = tmp_path / "text.tsv"
    path.write_bytes(end.join(LINES).encode())
    file = DataFile("text.tsv", str(path))
    assert len(file.spans()) == -(-path.stat().st_size // size)
    assert numbered(file) == [(f"{path}, line {number}", text) for number, text in GIVEN]


def test_gzip_zip_and_plain_give_the_same(tmp_path: Path) -> None:
    content = "\n".join(LINES).encode()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + content)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(content))
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("inside/a.txt", content)
        archive.writestr("__MACOSX/inside/._a.txt", b"junk")
    found = [*find_files(tmp_path).match("*.txt"), find_files(tmp_path / "c.zip").entries["a.txt"]]
    assert [file.name for file in found] == ["a.txt", "b.txt.gz", "a.txt"]
    assert [[text for _, text in numbered(file)] for file in found] == [[text for _, text in GIVEN]] * 3
    assert found[2].where.endswith("c.zip/inside/a.txt")


def test_bytes_in_another_encoding_are_named_read_as_it_or_replaced(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"ok\ncaf\xe9\n")
    files = find_files(tmp_path / "t.txt")
    mistakes = Mistakes("t")
    assert [text for _, text in numbered(files.entries["t.txt"], mistakes)] == ["ok"]
    (problem,) = mistakes.found
    assert "line 2: not UTF-8 at byte 3: b'caf\\xe9'" in problem and "encoding=latin-1" in problem
    latin = files.read_as("latin-1", "error").entries["t.txt"]
    replaced = files.read_as("utf-8", "replace").entries["t.txt"]
    assert [text for _, text in numbered(latin)] == ["ok", "café"]
    assert [text for _, text in numbered(replaced)] == ["ok", "caf\ufffd"]


@pytest.mark.parametrize(("encoding", "said"), [("latin-99", "not known"), ("utf-16", "iconv -f utf-16")])
def test_an_encoding_that_cannot_be_is_refused(encoding: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("ok")
    with pytest.raises(DataError, match=said):
        find_files(tmp_path).read_as(encoding, "error")


def test_utf_16_is_recognised_by_its_mark(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("text\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"t.txt: is UTF-16; save it as UTF-8"):
        numbered(find_files(tmp_path).entries["t.txt"])


def test_other_line_separators_belong_to_the_text(tmp_path: Path) -> None:
    text = "a\u2028b\x0bc\x85d\re"
    (tmp_path / "t.txt").write_text(text + "\nnext", encoding="utf-8", newline="")
    assert [text for _, text in numbered(find_files(tmp_path).entries["t.txt"])] == [text, "next"]


def test_a_head_ends_with_a_whole_line(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\ntwo\nthree")
    file = find_files(tmp_path).entries["t.txt"]
    assert file.head(9) == "one\ntwo\n" and file.head() == "one\ntwo\nthree"
