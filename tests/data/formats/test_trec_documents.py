import gzip
import pickle
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import pytest
from ir_datasets.formats.trec import TrecDocs

from ranker.data import files as files_module
from ranker.data.errors import Mistakes
from ranker.data.files import DataFile
from ranker.data.formats.trec_documents import TrecDocuments, title_and_text

# As on TREC disks 4 and 5: every tag begins a line, ids have blanks around them.
NEWS = """<DOC>
<DOCNO> FT911-3 </DOCNO>
<PROFILE>AN-BEOA7AAIFT</PROFILE>
<HEADLINE>
FT  14 MAY 91 / R&amp;D in Rome
</HEADLINE>
<TEXT>
<P>
Two <B>birds</B> sing,

and one &lt; two.
</P>
</TEXT>
<PUB>The Financial Times</PUB>
</DOC>
<DOC>
<DOCNO>WSJ870324-0001</DOCNO>
<HL>
Canaries
</HL>
<LP>
The lead.
</LP>
<TEXT>
The rest.
</TEXT>
</DOC>
"""


def read(path: Path, text: str | bytes, **options: Any) -> tuple[list[tuple[str, str, str]], Mistakes]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    mistakes = Mistakes(str(path))
    piece = pickle.loads(pickle.dumps(TrecDocuments(DataFile(path.name, str(path), **options))))
    rows = [tuple(row.values()) for table in piece.tables(mistakes) for row in table.to_pylist()]
    return rows, mistakes


class Download:
    """What ir_datasets takes for a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def path(self, force: bool = True) -> str:
        return str(self._path)

    def stream(self) -> IO[bytes]:
        return BytesIO(self._path.read_bytes())


def test_a_news_document_has_its_headline_as_title_and_its_line_breaks(tmp_path: Path) -> None:
    rows, mistakes = read(tmp_path / "ft911_1", NEWS)
    assert rows == [
        ("FT911-3", "FT  14 MAY 91 / R&D in Rome", "Two birds sing,\n\nand one < two."),
        ("WSJ870324-0001", "Canaries", "The lead.\nThe rest."),
    ]
    assert mistakes.count == 0


@pytest.mark.parametrize("parser", ["text", "BS4", "tut", "sax"])
def test_ir_datasets_reads_the_same_words(tmp_path: Path, parser: str) -> None:
    if parser in ("BS4", "sax"):
        pytest.importorskip({"BS4": "bs4", "sax": "lxml"}[parser])
    # "tut" knows TITLE on one line, "text" and "tut" leave entities and markup as they are.
    plain = NEWS.replace("&amp;", "and").replace("&lt;", "under").replace("<B>", "").replace("</B>", "")
    plain = plain.replace("<P>\n", "").replace("</P>\n", "")
    tut = plain.replace("<HL>\nCanaries\n</HL>", "<TITLE>Canaries</TITLE>").replace(
        "<HEADLINE>\nFT  14 MAY 91 / RandD in Rome\n</HEADLINE>", "<TITLE>FT  14 MAY 91 / RandD in Rome</TITLE>"
    )
    tut = tut.replace("<LP>\nThe lead.\n</LP>\n", "")
    rows, _ = read(tmp_path / "docs", {"BS4": NEWS, "sax": NEWS, "text": plain, "tut": tut}[parser])
    oracle = TrecDocs(Download(tmp_path / "docs"), parser=parser)._docs_iter(tmp_path / "docs")
    assert [(doc_id, f"{title} {text}".split()) for doc_id, title, text in rows] == [
        (document.doc_id, document.default_text().split()) for document in oracle
    ]


def test_tags_in_any_case_and_anywhere_in_a_line(tmp_path: Path) -> None:
    # As Cranfield and the test collections of Terrier are distributed.
    cranfield = (
        "<?xml version='1.0'?><root>\n<doc><docno>1</docno><title>wing flow .</title><author>brenckman,m.</author>"
        "<bib>j. ae. scs.</bib><text>an experimental\nstudy .</text></doc>\n"
        "<Doc>\n<DocNo>\n002\n</DocNo>\nbare text with <i>no</i> tag of its own\n</Doc></root>"
    )
    rows, mistakes = read(tmp_path / "cran.xml", cranfield)
    assert rows == [
        ("1", "wing flow .", "an experimental\nstudy ."),
        ("002", "", "bare text with no tag of its own"),
    ]
    assert mistakes.count == 0


@pytest.mark.parametrize(
    ("markup", "title", "text"),
    [
        # A web page: the title inside of HEAD, scripts and headers are no text, blocks keep words apart.
        (
            "<DOCHDR>\nHTTP/1.1 200 OK\n</DOCHDR>\n<html><head><title>Birds</title><script>a<b</script></head>"
            "<body><h3>Song</h3><p>one</p><p>t<b>w</b>o<br>three<!-- <p>no --></body></html>",
            "Birds",
            "Song one two three",
        ),
        # Newswire with a BODY around its TEXT.
        (
            "<BODY><SLUG>bc-birds</SLUG><HEADLINE>Birds</HEADLINE><TEXT>sing</TEXT></BODY><TRAILER>end</TRAILER>",
            "Birds",
            "sing",
        ),
        # Two headlines, of which the second is lost neither; an empty title is none.
        ("<TITLE> </TITLE><HEAD>First</HEAD><HEAD>Second</HEAD><TEXT>rest</TEXT>", "First", "Second\nrest"),
        ("<HEADER><H3> <TI>  Radio </TI></H3></HEADER><TEXT>x</TEXT>", "Radio", "x"),
        ("<ABSTRACT>short</ABSTRACT><BODY>long</BODY>", "", "short\nlong"),
        ("<TITLE>only</TITLE><TEXT/>", "only", ""),
        ("<HL>never closed\n<TEXT>text</TEXT>", "never closed", "text"),
        ("2 < 3 and 4 > 3, a <3 b, &eacute; &unknown; &amp;lt;", "", "2 < 3 and 4 > 3, a <3 b, é &unknown; &lt;"),
        ("", "", ""),
    ],
)
def test_titles_and_texts(markup: str, title: str, text: str) -> None:
    assert title_and_text(markup) == (title, text)


def test_ids_stay_as_they_are(tmp_path: Path) -> None:
    rows, _ = read(tmp_path / "d", "".join(f"<DOC><DOCNO>{d}</DOCNO>x</DOC>" for d in ("007", "R&D1", "a&amp;b&lt;c")))
    assert [row[0] for row in rows] == ["007", "R&D1", "a&b<c"]


def test_blocks_cut_documents_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = read(tmp_path / "d", NEWS * 3)
    monkeypatch.setattr(files_module, "BLOCK_BYTES", 16)
    assert read(tmp_path / "d", NEWS * 3) == (whole, Mistakes(str(tmp_path / "d")))
    assert read(tmp_path / "d.gz", gzip.compress((NEWS * 3).encode()))[0] == whole
    assert read(tmp_path / "d", (NEWS * 3).replace("\n", "\r\n"))[0] == whole


def test_every_broken_document_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "docs.sgml"
    rows, mistakes = read(
        path,
        "<DOC>\n<TEXT>no id</TEXT>\n</DOC>\n</DOC>\n<DOC>\n<DOCNO>1</DOCNO>\n<DOC>\n<DOCNO>2</DOCNO>\n</DOC>\n"
        "<DOC><DOCNO> </DOCNO></DOC>\n<DOC>\n<DOCNO>3</DOCNO>\n",
    )
    assert rows == [("2", "", "")]
    assert mistakes.found == [
        f"{path}, line 1: <DOC> without an id; write <DOCNO> id </DOCNO> into it",
        f"{path}, line 4: </DOC> without <DOC>; write <DOC> before each document",
        f"{path}, line 5: <DOC> is not closed before the next <DOC> in line 7; write </DOC> behind each document",
        f"{path}, line 10: <DOC> without an id; write <DOCNO> id </DOCNO> into it",
        f"{path}, line 11: <DOC> is not closed at the end of the file; write </DOC> behind each document",
    ]


def test_bytes_of_another_encoding_name_their_line_and_can_be_read(tmp_path: Path) -> None:
    raw = "<DOC>\n<DOCNO>1</DOCNO>\n\n<TEXT>caf\xe9</TEXT>\n</DOC>\n".encode("latin-1")
    rows, mistakes = read(tmp_path / "d", raw)
    assert rows == [] and "d, line 4: not UTF-8 at byte 9" in mistakes.found[0] and mistakes.count == 1
    assert read(tmp_path / "d", raw, encoding="latin-1")[0] == [("1", "", "café")]
    assert read(tmp_path / "d", raw, on_invalid="replace")[0] == [("1", "", "caf\ufffd")]


def test_a_cut_gzip_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress("".join(f"<DOC>\n<DOCNO>{n}</DOCNO>\n{n * 7919}\n</DOC>\n" for n in range(3000)).encode())
    monkeypatch.setattr(files_module, "BLOCK_BYTES", 1000)
    rows, mistakes = read(tmp_path / "d.gz", packed[:-3000])
    assert rows[:2] == [("0", "", "0"), ("1", "", "7919")] and len(rows) < 3000
    assert "cannot be read further" in mistakes.found[0] and "copy the file again" in mistakes.found[0]


def test_a_document_is_found_by_its_id(tmp_path: Path) -> None:
    read(tmp_path / "d", NEWS)
    piece = TrecDocuments(DataFile("d", str(tmp_path / "d")))
    assert list(piece.places({"WSJ870324-0001", "none"})) == [("WSJ870324-0001", f"{tmp_path / 'd'}, line 16")]
    assert piece.num_bytes == len(NEWS)


def test_a_file_is_never_all_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").write_text(f"<DOC><DOCNO>1</DOCNO>{'word ' * 2000}\n</DOC>\n" * 800)  # 8 MB
    monkeypatch.setattr(files_module, "BLOCK_BYTES", 100_000)
    monkeypatch.setattr("ranker.data.pieces.BLOCK_ROWS", 10)
    tables = TrecDocuments(DataFile("d", str(tmp_path / "d"))).tables(Mistakes("d"))
    tracemalloc.start()
    try:
        assert sum(table.num_rows for table in tables) == 800
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
