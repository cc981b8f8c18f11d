"""A data set written with MS MARCO's names.

``collection.tsv`` or, with titles, ``docs.tsv``; ``queries.SPLIT.tsv``, ``qrels.SPLIT.tsv``. Candidates are a
``run.trec``, which keeps their scores; triples are ``qidpidtriples.SPLIT.tsv``.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.errors import Mistakes, shown
from ranker.data.formats.msmarco_files import named_kind, split_of
from ranker.data.formats.trec import qrels_lines, rows_of, run_lines
from ranker.data.formats.trec_topics import HEADER_NAMES
from ranker.data.formats.trec_write import check_words, warn_of_levels
from ranker.data.splits import Splits
from ranker.data.writers import WritingFolder
from ranker.schemas import CORPUS

_LINE_ENDS = "[\n\r]"
_FIELD_ENDS = "[\t\n\r]"
_LOSSY = "write with --lossy to put a space there"


def write_msmarco(folder: Path, data: Splits, lossy: bool = False) -> None:
    """Write a data set with MS MARCO's file names; its documents are never all in memory.

    It reads back equal, but for the order of queries, which is that of their files, and of the run, which is that of
    queries and ranks. With a title somewhere the documents are ``docs.tsv``, with an empty address. The files cannot
    say: line breaks in a text, tabs in a title, and splits whose name means another here (dev.small is dev). ``lossy``
    puts a space there, and uses the other name. From which relevance on a document counts is not in the files either.

    Raises:
        DataError: counting what cannot be said and naming some, or where the folder holds something; then nothing
            is written.
    """
    into = WritingFolder(folder, data)
    mistakes = Mistakes(str(folder))
    check_words(data, mistakes, triples=True)
    _check_headers(data, mistakes)
    titled = any(pc.any(pc.not_equal(block["title"], "")).as_py() for block in data.corpus.blocks(["title"]))
    if not lossy:
        _check_documents(data, titled, mistakes)
    _check_queries(data, lossy, mistakes)
    for kind, splits in (("qrels", data.qrels), ("qidpidtriples", data.triples)):
        _check_splits(kind, splits, lossy, mistakes)
    mistakes.raise_if_any()
    warn_of_levels(folder, data)
    with into:
        _write_documents(into, titled)
        _write_queries(into, data)
        for split, table in data.qrels.items():
            with into.file(f"qrels.{_split_name('qrels', split)}.tsv") as stream:
                stream.writelines(qrels_lines(table, "\t"))
        for split, table in data.triples.items():
            with into.file(f"qidpidtriples.{_split_name('qidpidtriples', split)}.tsv") as stream:
                stream.writelines("\t".join(row.values()) + "\n" for row in rows_of(table))
        if data.run is not None:
            with into.file("run.trec") as stream:
                stream.writelines(run_lines(data.run, "run"))


def _write_documents(into: WritingFolder, titled: bool) -> None:
    with into.file("docs.tsv" if titled else "collection.tsv") as stream:
        for block in into.data.corpus.blocks():
            doc_ids, titles, texts = (pc.fill_null(block[name], "") for name in CORPUS.names)
            fields = [doc_ids, _replaced(texts, _LINE_ENDS)]
            if titled:
                fields[1:1] = [pa.repeat("", block.num_rows), _replaced(titles, _FIELD_ENDS)]
            _write_lines(stream, fields)


def _write_queries(into: WritingFolder, data: Splits) -> None:
    """The queries of each split in a file, those of no split in ``queries.other.tsv``."""
    ids = data.queries["query_id"]
    judged = {_split_name("qrels", split): pc.is_in(ids, table["query_id"]) for split, table in data.qrels.items()}
    others = pc.invert(reduce(pc.or_, judged.values(), pc.is_in(ids, pa.array([], pa.string()))))
    judged["other"] = pc.or_(judged["other"], others) if "other" in judged else others
    for split, wanted in judged.items():
        queries = data.queries.filter(wanted)
        if queries.num_rows:
            with into.file(f"queries.{split}.tsv") as stream:
                _write_lines(stream, [queries["query_id"], _replaced(queries["text"], _LINE_ENDS)])


def _write_lines(stream: TextIO, fields: Sequence[pa.ChunkedArray]) -> None:
    lines = pc.binary_join_element_wise(*fields, "\t").to_pylist()
    stream.writelines(f"{line}\n" for line in lines)


def _replaced(texts: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    return pc.replace_substring_regex(texts, pattern, " ")


def _check_documents(data: Splits, titled: bool, mistakes: Mistakes) -> None:
    wrong = {
        "text": (_LINE_ENDS, "a line break"),
        **({"title": (_FIELD_ENDS, "a tab or a line break")} if titled else {}),
    }
    for block in data.corpus.blocks():
        for name, (pattern, what) in wrong.items():
            for row in block.filter(pc.match_substring_regex(block[name], pattern)).to_pylist():
                mistakes.add(f"document {row['doc_id']!r}", f"its {name} holds {what}: {shown(row[name])}; {_LOSSY}")


def _check_queries(data: Splits, lossy: bool, mistakes: Mistakes) -> None:
    for row in rows_of(data.queries):
        place, text = f"query {row['query_id']!r}", row["text"] or ""
        if not text.strip():
            mistakes.add(place, f"its text is empty: {shown(text)}; give it words or remove it")
        elif not lossy and ("\n" in text or "\r" in text):
            mistakes.add(place, f"its text holds a line break: {shown(text)}; {_LOSSY}")


def _check_headers(data: Splits, mistakes: Mistakes) -> None:
    """An id at the start of a file must not be what begins a line with the names of columns."""
    block: pa.Table = next(iter(data.corpus.blocks(["doc_id"])), CORPUS.empty_table())
    first = block["doc_id"][:1].to_pylist()
    tables = [data.queries, *data.qrels.values(), *data.triples.values()]
    query_ids = {value for table in tables for value in table["query_id"].unique().to_pylist()}
    for noun, values in (("doc_id", first), ("query_id", sorted(filter(None, query_ids)))):
        for value in filter(None, values):
            if value.lower() in HEADER_NAMES:
                mistakes.add(f"{noun} {value!r}", "at the start of a file would be no row of it; rename it")


def _check_splits(kind: str, splits: Iterable[str], lossy: bool, mistakes: Mistakes) -> None:
    names: dict[str, list[str]] = {}
    for split in splits:
        name = _split_name(kind, split)
        names.setdefault(name, []).append(split)
        if named_kind(f"queries.{name}.tsv") != "queries":
            mistakes.add(f"{kind} {split!r}", "is what other files of MS MARCO are called; rename the split")
    for name, same in names.items():
        if len(same) > 1:
            mistakes.add(f"{kind} {', '.join(same)}", f"would all read back as {name}; write them apart")
        elif same != [name] and not lossy:
            remedy = f"write with --lossy to call it {name}"
            mistakes.add(f"{kind} {same[0]}", f"would read back as {name}; rename the split, or {remedy}")


def _split_name(kind: str, split: str) -> str:
    return split_of(f"{kind}.{split}.tsv")
