"""TREC topics as queries: ``<top>`` records, XML, or lines ``id<TAB>text`` and ``id:text``; seen from the file itself.

https://trec.nist.gov/data/testq_eng.html
"""

import html
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa

from ranker.data.errors import Mistakes, shown
from ranker.data.files import DataFile
from ranker.schemas import QUERIES

# First fields of a first line that names columns.
HEADER_NAMES = frozenset({"qid", "pid", "id", "query_id", "query-id", "doc_id", "docid"})
# What the query of a topic in XML is, in the order of preference.
XML_QUERY_TAGS = ("title", "query", "text", "desc", "description", "summary", "question")

# The tags that a record may be in, the first of which that stands in a file counts.
_RECORDS = {tag: re.compile(rf"<{tag}(?:\s[^<>]*)?>", re.IGNORECASE) for tag in ("top", "topic", "query")}
_FIELD = re.compile(
    r"<(?:[a-z]{2}-)?(num|title|desc)\s*>\s*(?:(?:number|topic|description)\s*:)?(.*?)(?=</?[a-z]|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


class Query(NamedTuple):
    """A query, and the line of the file that it begins in."""

    query_id: str
    text: str
    file: DataFile
    number: int

    @property
    def place(self) -> str:
        """For an error message."""
        return self.file.place(self.number)


def read_topics(files: Iterable[DataFile], mistakes: Mistakes) -> pa.Table:
    """QUERIES of all the files. The query of a topic is its title, or its description where the title is empty.

    White space around a query is cut off. In ``<top>`` records, whose lines are wrapped, white space inside is one
    space; in XML it stays.
    """
    return distinct_queries((query for file in files for query in _topics(file, mistakes)), mistakes)


def distinct_queries(found: Iterable[Query], mistakes: Mistakes) -> pa.Table:
    """QUERIES of what was found; a query may stand there again, with the same text only.

    An id or a text that is blank is a mistake.
    """
    first: dict[str, Query] = {}
    for query in found:
        known = first.get(query.query_id)
        if not query.query_id.strip():
            mistakes.add(query.place, f"the query {shown(query.text)} has no id; give it one")
        elif not query.text.strip():
            mistakes.add(query.place, f"the text of query {query.query_id!r} is empty; give it words or remove it")
        elif known is None:
            first[query.query_id] = query
        elif known.text != query.text:
            other = f"and {shown(known.text)} at {known.place}"
            problem = f"query {query.query_id!r} is {shown(query.text)} here {other}"
            mistakes.add(query.place, f"{problem}; keep one, or give it another id")
    return pa.table([list(first), [query.text for query in first.values()]], schema=QUERIES)


def record_tag(head: str) -> str | None:
    """The tag that the topics of a file are in, by its first lines; None where they are in none."""
    return next((tag for tag, begin in _RECORDS.items() if begin.search(head)), None)


def _topics(file: DataFile, mistakes: Mistakes) -> Iterator[Query]:
    head = file.head()
    tag = record_tag(head)
    if tag == "top":
        yield from _from_records(file, mistakes)
    elif tag is not None:
        yield from _from_xml(file, tag, mistakes)
    elif head.lstrip().startswith("<"):
        mistakes.add(file.where, "is markup without <top> or <topic number=...>; write each topic in one of them")
    elif head.lstrip().startswith('{"'):
        mistakes.add(
            file.where, "is JSON, which no topics of TREC are; write id, tab, query, or use the layout of BEIR"
        )
    else:
        yield from _from_lines(file, mistakes)


def _from_records(file: DataFile, mistakes: Mistakes) -> Iterator[Query]:
    for number, record in _records(file, "top", mistakes):
        fields: dict[str, str] = {}
        for name, value in _FIELD.findall(record):
            text = " ".join(html.unescape(value).split())
            fields.setdefault(name.lower(), text)
        yield Query(fields.get("num", ""), fields.get("title") or fields.get("desc", ""), file, number)


def _from_xml(file: DataFile, tag: str, mistakes: Mistakes) -> Iterator[Query]:
    for number, record in _records(file, tag, mistakes):
        try:
            topic = ElementTree.fromstring(record)
        except ElementTree.ParseError as error:
            mistakes.add(file.place(number), f"the <{tag}> that begins here is not XML ({error}); write & as &amp;")
            continue
        parts = {child.tag.lower(): "".join(child.itertext()).strip() for child in reversed(topic)}
        text = next((parts[tag] for tag in XML_QUERY_TAGS if parts.get(tag)), "")
        query_id = topic.get("number") or topic.get("id") or parts.get("number") or parts.get("num") or ""
        yield Query(query_id.strip(), text or (topic.text or "").strip(), file, number)


def _records(file: DataFile, tag: str, mistakes: Mistakes) -> Iterator[tuple[int, str]]:
    """(line, markup) of each record from its first tag to its last; one that is not closed is a mistake."""
    markup = _COMMENT.sub(lambda comment: "\n" * comment.group().count("\n"), _whole_text(file, mistakes))
    starts = [match.start() for match in _RECORDS[tag].finditer(markup)]
    end = re.compile(rf"</{tag}\s*>", re.IGNORECASE)
    number, counted = 1, 0
    for start, limit in zip(starts, [*starts[1:], len(markup)], strict=True):
        number, counted = number + markup.count("\n", counted, start), start
        closing = end.search(markup, start, limit)
        if closing is None:
            mistakes.add(file.place(number), f"<{tag}> is not closed; write </{tag}> behind each topic")
        else:
            yield number, markup[start : closing.end()]


def _whole_text(file: DataFile, mistakes: Mistakes) -> str:
    """All of a file: topics are few. Lines that cannot be decoded are noted and left empty."""
    lines: list[str] = []
    for _, block in file.blocks(mistakes):
        for raw in block.removesuffix(b"\n").split(b"\n"):
            lines.append(file.decode(raw.removesuffix(b"\r"), mistakes, len(lines) + 1) or "")
    return "\n".join(lines)


def _from_lines(file: DataFile, mistakes: Mistakes) -> Iterator[Query]:
    separator = ""
    for line in file.lines(mistakes):
        if not separator:
            separator = "\t" if "\t" in line.text else ":"
            if line.text.partition("\t")[0].strip().lower() in HEADER_NAMES:
                continue
        query_id, found, text = line.text.partition(separator)
        if found:
            yield Query(query_id.strip(), text.strip(), file, line.number)
        else:
            mistakes.add(line.place, f"no tab and no colon in {shown(line.text)}; write id, tab, query")
