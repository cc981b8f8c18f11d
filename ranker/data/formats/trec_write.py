"""A data set written as a TREC collection: ``documents.trec``, ``topics.xml``, ``qrels.SPLIT.txt``, ``run.trec``."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import quoteattr

from ranker.data.errors import Mistakes, shown
from ranker.data.formats.trec import is_one_word, qrels_lines, rows_of, run_lines, split_of
from ranker.data.splits import Splits
from ranker.data.writers import WritingFolder
from ranker.schemas import SPLITS

log = logging.getLogger(__name__)

# Characters that no XML 1.0 file may hold, https://www.w3.org/TR/xml/#charsets
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}
# Columns of QRELS, RUN and ID_TRIPLES, and what they hold.
_NOUNS = {"query_id": "query_id", "doc_id": "doc_id", "positive_id": "doc_id", "negative_id": "doc_id"}
_LOSSY = "write with --lossy to do without"


def write_trec(folder: Path, data: Splits, lossy: bool = False) -> None:
    """Write a data set as a TREC collection; its documents are never all in memory.

    It reads back equal, but for the order of the run, which is that of queries and ranks. The files cannot say: white
    space around a title or a text, control characters in a query, splits other than train, dev and test, triples.
    ``lossy`` does without. From which relevance on a document counts is not in the files either.

    Raises:
        DataError: counting what cannot be said and naming some, or where the folder holds something; then nothing
            is written.
    """
    into = WritingFolder(folder, data)
    mistakes = Mistakes(str(folder))
    check_words(data, mistakes)
    _check_queries(data, lossy, mistakes)
    _check_splits(data, lossy, mistakes)
    if not lossy:
        _check_documents(data, mistakes)
    mistakes.raise_if_any()
    warn_of_levels(folder, data)
    with into:
        with into.file("documents.trec") as stream:
            for row in into.documents():
                title, text = ((row[name] or "").strip() for name in ("title", "text"))
                stream.write(f"<DOC>\n<DOCNO>{_escaped(row['doc_id'])}</DOCNO>\n<TITLE>{_escaped(title)}</TITLE>\n")
                stream.write(f"<TEXT>\n{_escaped(text)}\n</TEXT>\n</DOC>\n")
        if data.queries.num_rows:
            with into.file("topics.xml") as stream:
                stream.writelines(_topic_lines(data))
        for split, table in data.qrels.items():
            with into.file(f"qrels.{split_of(split)}.txt") as stream:
                stream.writelines(qrels_lines(table))
        if data.run is not None:
            with into.file("run.trec") as stream:
                stream.writelines(run_lines(data.run, "run"))


def check_words(data: Splits, mistakes: Mistakes, *, triples: bool = False) -> None:
    """Every id that a file with white space between its fields cannot say is a mistake, once."""
    named: set[tuple[str, str]] = set()
    for noun, value in _ids(data, triples):
        if not is_one_word(value) and (noun, value) not in named:
            named.add((noun, value))
            problem = "is empty, holds white space or begins with a byte order mark, which such files cannot say"
            mistakes.add(f"{noun} {value!r}", f"{problem}; rename it")


def warn_of_levels(folder: Path, data: Splits) -> None:
    """Say that the files do not hold from which relevance on a document counts."""
    levels = {split: level for split, level in data.relevance_levels.items() if level != 1 and split in data.qrels}
    if levels:
        log.warning("%s does not say that judgements count as relevant from %s on", folder, levels)


def _ids(data: Splits, triples: bool) -> Iterator[tuple[str, str]]:
    for block in data.corpus.blocks(["doc_id"]):
        yield from (("doc_id", value or "") for value in block["doc_id"].to_pylist())
    yield from (("query_id", value or "") for value in data.queries["query_id"].to_pylist())
    runs, lists = ([] if data.run is None else [data.run]), data.triples.values() if triples else ()
    for table in [*data.qrels.values(), *runs, *lists]:
        for name, noun in _NOUNS.items():
            if name in table.column_names:
                yield from ((noun, value or "") for value in table[name].unique().to_pylist())


def _check_documents(data: Splits, mistakes: Mistakes) -> None:
    for block in data.corpus.blocks():
        for row in block.to_pylist():
            for name in ("title", "text"):
                text = row[name] or ""
                if text != text.strip():
                    problem = f"its {name} begins or ends with white space: {shown(text)}; {_LOSSY}"
                    mistakes.add(f"document {row['doc_id']!r}", problem)


def _check_queries(data: Splits, lossy: bool, mistakes: Mistakes) -> None:
    for row in rows_of(data.queries):
        place, text = f"query {row['query_id']!r}", row["text"] or ""
        if _NOT_XML.search(row["query_id"] or ""):
            mistakes.add(place, "its id holds a control character, which XML cannot say; rename it")
        if not _query_text(text):
            mistakes.add(place, f"its text is empty: {shown(text)}; give it words or remove it")
        elif not lossy and text != _query_text(text):
            problem = "begins or ends with white space or holds a control character"
            mistakes.add(place, f"its text {problem}: {shown(text)}; {_LOSSY}")


def _check_splits(data: Splits, lossy: bool, mistakes: Mistakes) -> None:
    names: dict[str, list[str]] = {}
    for split in data.qrels:
        names.setdefault(split_of(split), []).append(split)
    for name, splits in names.items():
        if len(splits) > 1 or (splits != [name] and not lossy):
            problem = f"would read back as {name}; the names of the files say {', '.join(SPLITS)} only"
            remedy = "write them apart" if len(splits) > 1 else f"write with --lossy to call it {name}"
            mistakes.add(f"splits {', '.join(splits)}", f"{problem}; {remedy}")
    triples = {split: table.num_rows for split, table in data.triples.items() if table.num_rows}
    if triples and not lossy:
        mistakes.add("triples", f"{triples}, which no file of TREC holds; {_LOSSY}, or write the format msmarco")


def _topic_lines(data: Splits) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<topics>\n'
    for row in rows_of(data.queries):
        title = _escaped(_query_text(row["text"]))
        yield f"<topic number={quoteattr(row['query_id'])}><title>{title}</title></topic>\n"
    yield "</topics>\n"


def _query_text(text: str) -> str:
    return _NOT_XML.sub(" ", text).strip()


def _escaped(text: str) -> str:
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text
