"""TREC documents: ``<DOC> <DOCNO> id </DOCNO> ... </DOC>``, any number of them in a file, any number of files.

https://trec.nist.gov/data/docs_eng.html ; the markup is SGML without a grammar, and every collection has its own tags.
"""

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa

from ranker.data.errors import Mistakes
from ranker.data.files import DataFile
from ranker.data.pieces import Row, tables_of
from ranker.schemas import CORPUS

# In the order of preference: HTML has a TITLE inside its HEAD, where other collections have a headline in HEAD.
TITLE_TAGS = ("title", "headline", "hl", "head", "ttl", "h3")
CONTENT_TAGS = frozenset({"text", "lp", "leadpara", "abstract", "body"})
# Titles of sections rather than of the document where they stand inside its content.
_SECTION_TAGS = frozenset({"head", "h3"})
# Tags that stand between words even where there is no white space beside them.
_BREAKS = frozenset({
    "article", "blockquote", "br", "dd", "div", "dl", "dt", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6",
    "header", "hr", "li", "ol", "option", "p", "pre", "section", "table", "tbody", "td", "tfoot", "th", "thead", "tr",
    "ul",
})  # fmt: skip

_DOC = re.compile(rb"<(/?)[dD][oO][cC](?:\s[^<>]*)?>")
_DOCNO = re.compile(r"<docno(?:\s[^<>]*)?>(.*?)</docno\s*>", re.IGNORECASE | re.DOTALL)
_NO_TEXT = re.compile(
    r"<(docno|docid|docoldno|dochdr|script|style)(?:\s[^<>]*)?>.*?</\1\s*>", re.IGNORECASE | re.DOTALL
)
_TAG = re.compile(r"<!--.*?-->|<[!?][^<>]*>|<(/?)([A-Za-z][\w.:-]*)(?:[\s/][^<>]*)?>", re.DOTALL)
_ID_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


@dataclass(frozen=True)
class TrecDocuments:
    """The documents of one file, as CORPUS.

    The id is what stands in DOCNO. The title is the first of TITLE_TAGS that is there and not empty. The text is what
    stands in CONTENT_TAGS, in order, with titles beyond the first; without any such tag it is everything but the id,
    DOCHDR and the like. Entities are decoded, markup is taken out and leaves its text, white space around is cut off,
    line breaks inside stay.

    ``ir_datasets`` reads the same files into the same words, except that here every tag may stand anywhere in a line
    and in any case; that the date (DATE, DD), scripts and styles are no text; that ``<p>`` and other blocks of HTML
    keep the words beside them apart; and that bare text, ABSTRACT and BODY are read.
    """

    file: DataFile

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        return self.file.num_bytes

    def tables(self, mistakes: Mistakes) -> Iterator[pa.Table]:
        """A document without DOCNO, or one that is not closed, is a mistake; a block of the file is in memory."""
        yield from tables_of((row for _, row in self._rows(mistakes)), CORPUS)

    def places(self, doc_ids: set[str]) -> Iterator[tuple[str, str]]:
        """The lines with ``<DOC>``; the file is read again."""
        for number, row in self._rows(Mistakes(self.file.where)):
            if row[0] in doc_ids:
                yield row[0], self.file.place(number)

    def _rows(self, mistakes: Mistakes) -> Iterator[tuple[int, Row]]:
        for number, raw in self._documents(mistakes):
            markup = self._decoded(raw, number, mistakes)
            if markup is None:
                continue
            found = _DOCNO.search(markup)
            doc_id = _identifier(found.group(1)) if found else ""
            if doc_id:
                yield number, (doc_id, *title_and_text(markup))
            else:
                mistakes.add(self.file.place(number), "<DOC> without an id; write <DOCNO> id </DOCNO> into it")

    def _documents(self, mistakes: Mistakes) -> Iterator[tuple[int, bytes]]:
        """(number of the line with ``<DOC>``, what stands between it and ``</DOC>``)."""
        opened: int | None = None
        parts: list[bytes] = []
        for first, block in self.file.blocks(mistakes):
            number, counted, begin = first, 0, 0
            for tag in _DOC.finditer(block):
                number, counted = number + block.count(b"\n", counted, tag.start()), tag.start()
                if not tag.group(1):
                    self._note_open(opened, f"before the next <DOC> in line {number}", mistakes)
                    opened, parts, begin = number, [], tag.end()
                elif opened is None:
                    mistakes.add(self.file.place(number), "</DOC> without <DOC>; write <DOC> before each document")
                else:
                    yield opened, b"".join([*parts, block[begin : tag.start()]])
                    opened, parts = None, []
            if opened is not None:
                parts.append(block[begin:])
        self._note_open(opened, "at the end of the file", mistakes)

    def _note_open(self, opened: int | None, when: str, mistakes: Mistakes) -> None:
        if opened is not None:
            mistakes.add(self.file.place(opened), f"<DOC> is not closed {when}; write </DOC> behind each document")

    def _decoded(self, raw: bytes, first: int, mistakes: Mistakes) -> str | None:
        try:
            text = raw.decode(self.file.encoding)
        except UnicodeDecodeError:
            lines = raw.split(b"\n")
            decoded = [self.file.decode(line, mistakes, number) for number, line in enumerate(lines, first)]
            known = [line for line in decoded if line is not None]
            if len(known) < len(lines):
                return None
            text = "\n".join(known)
        return text.replace("\r\n", "\n")


def title_and_text(markup: str) -> tuple[str, str]:
    """Title and text of what stands in one ``<DOC>``; see :class:`TrecDocuments`."""
    found = _Elements()
    markup = _NO_TEXT.sub(" ", markup)
    begin = 0
    for tag in _TAG.finditer(markup):
        found.text(markup[begin : tag.start()])
        begin = tag.end()
        if tag.group(2):
            found.tag(tag.group(2).lower(), closing=bool(tag.group(1)), empty=tag.group(0).endswith("/>"))
    found.text(markup[begin:])
    return found.title_and_text()


@dataclass
class _Elements:
    """Titles and contents of a document as they are met.

    Args:
        names: tag of each, by its number; number 0 is what stands outside. stack: numbers of the open ones.
        parts: (number, text) in the order of the document; None stands for a break between words.
        outer: numbers of the BODYs that only hold contents of their own, such as TEXT.
    """

    names: list[str] = field(default_factory=lambda: [""])
    stack: list[int] = field(default_factory=lambda: [0])
    parts: list[tuple[int, str | None]] = field(default_factory=list)
    outer: set[int] = field(default_factory=set)

    def text(self, text: str) -> None:
        if text:
            self.parts.append((self.stack[-1], text))

    def tag(self, name: str, *, closing: bool, empty: bool) -> None:
        if name in _BREAKS:
            self.parts.append((self.stack[-1], None))
        if name not in CONTENT_TAGS and name not in TITLE_TAGS:
            return
        if closing:
            self._close(name)
        elif name not in _SECTION_TAGS or not any(self.names[number] in CONTENT_TAGS for number in self.stack):
            self._open(name)
            if empty:
                self._close(name)

    def _open(self, name: str) -> None:
        if name in CONTENT_TAGS:
            # A title that was never closed ends where the content begins.
            self.stack = [number for number in self.stack if self.names[number] not in TITLE_TAGS]
            self.outer |= {number for number in self.stack if self.names[number] == "body"}
        self.stack.append(len(self.names))
        self.names.append(name)

    def _close(self, name: str) -> None:
        for depth in range(len(self.stack) - 1, 0, -1):
            if self.names[self.stack[depth]] == name:
                del self.stack[depth:]
                return

    def title_and_text(self) -> tuple[str, str]:
        filled = {number for number, text in self.parts if text and not text.isspace()}
        titles = [number for number in sorted(filled) if self.names[number] in TITLE_TAGS]
        chosen = min(titles, key=lambda number: TITLE_TAGS.index(self.names[number]), default=None)
        left_out = {chosen, *self.outer} | ({0} if CONTENT_TAGS.intersection(self.names) else set())
        title = _joined(part for part in self.parts if part[0] == chosen)
        return title, _joined(part for part in self.parts if part[0] not in left_out)


def _joined(parts: Iterable[tuple[int, str | None]]) -> str:
    """The text of a row of parts; one element begins on a new line behind another."""
    texts = (_text(text for _, text in group) for _, group in groupby(parts, key=lambda part: part[0]))
    return "\n".join(filter(None, texts))


def _text(parts: Iterable[str | None]) -> str:
    text, broken = "", False
    for part in parts:
        if part is None:
            broken = True
            continue
        if broken and text and not text[-1].isspace() and not part[0].isspace():
            text += " "
        text, broken = text + part, False
    return html.unescape(text).strip()


def _identifier(markup: str) -> str:
    # Only the entities without which markup cannot be written: an id such as R&D1 stays as it is.
    for entity, character in _ID_ENTITIES:
        markup = markup.replace(entity, character)
    return markup.strip()
