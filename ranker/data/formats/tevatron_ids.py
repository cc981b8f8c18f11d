"""Tevatron's layout with ids in place of passages, and the corpus in a file of its own: a collection, no examples.

A file a split holds query_id, query_text, positive_document_ids and negative_document_ids; the corpus holds docid,
title and text (or document_text). https://github.com/texttron/tevatron
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pyarrow as pa

from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.files import DataFile
from ranker.data.formats.layouts import ID_LISTS, QUERY_TEXTS
from ranker.data.formats.record_fields import Fields, Place, query_id_of
from ranker.data.formats.record_files import record_pieces
from ranker.data.formats.record_pieces import Record
from ranker.data.pieces import Row
from ranker.data.source import Source
from ranker.schemas import CORPUS, QRELS, QUERIES

DOC_IDS = ("docid", "document_id", "_id", "doc_id")
TEXTS = ("text", "document_text")
_JUDGED = pa.schema([*QUERIES, *((name, pa.list_(pa.string())) for name in ID_LISTS)])
_QUERY_READS = ("query_id", *QUERY_TEXTS, *ID_LISTS)


def is_corpus(columns: Sequence[str]) -> bool:
    """Whether these are the columns of documents."""
    return any(name in columns for name in DOC_IDS) and any(name in columns for name in TEXTS)


def tevatron_source(
    name: str, corpus: Sequence[DataFile], judged: Mapping[str, Sequence[DataFile]], names: Mapping[str, str]
) -> Source:
    """The collection: positives are judged 1, negatives 0.

    Args:
        corpus: files of the documents. judged: split -> files of its queries. names: our name -> the column's.

    Raises:
        DataError: where there is no corpus.
    """
    if not corpus:
        raise DataError(
            f"{name}: its files hold ids of documents ({', '.join(ID_LISTS)}), and no file beside them the documents; "
            "put a JSONL file with docid, title and text there"
        )
    reads = (*DOC_IDS, *TEXTS, "title")
    return Source(
        name=name,
        format="tevatron",
        corpus=[piece for file in corpus for piece in record_pieces(file, CORPUS, parse_document, reads)],
        queries=partial(_queries, judged, names),
        qrels=partial(_qrels, judged, names),
        corpus_name=corpus[0].name,
        queries_name=", ".join(file.name for files in judged.values() for file in files),
    )


def parse_document(record: Record, place: Place, mistakes: Mistakes) -> Row | None:
    """A row of CORPUS; an empty text is one, a null is not."""
    fields = Fields(record, place, mistakes)
    doc_id = fields.identifier(DOC_IDS)
    if doc_id is None:
        fields.refuse("docid", 'an id that is not empty, such as "007"')
    name = next((name for name in TEXTS if fields.has(name)), TEXTS[0])
    text, title = fields.value(name), "" if fields.value("title") is None else fields.value("title")
    for field, value in ((name, text), ("title", title)):
        if not isinstance(value, str):
            fields.refuse(field, "a text")
        elif value.strip():
            fields.checked_text(value, field)
    return None if fields.num_wrong else (doc_id, title, text)


def parse_judged(names: Mapping[str, str], record: Record, place: Place, mistakes: Mistakes) -> Row | None:
    """A query with the ids of its positives and negatives."""
    fields = Fields(record, place, mistakes, names)
    text = fields.text(next((name for name in QUERY_TEXTS if fields.has(name)), QUERY_TEXTS[0]))
    query_id = fields.identifier(("query_id",)) or query_id_of(text)
    lists = [_ids(fields, name) for name in ID_LISTS]
    for doc_id in sorted({*lists[0]} & {*lists[1]}):
        fields.wrong(f"document {doc_id!r} is a positive and a negative of query {query_id!r}; keep one of them")
    if not any(lists) and not fields.num_wrong:
        fields.wrong(f"query {query_id!r} has neither positives nor negatives; give it some, or remove it")
    return None if fields.num_wrong else (query_id, text, *lists)


def _ids(fields: Fields, name: str) -> list[str]:
    value = fields.value(name)
    if not isinstance(value, list | tuple | None):
        fields.refuse(name, "a list of ids")
        return []
    return fields.identifiers(name, len(value or [])) or []


def _tables(files: Sequence[DataFile], names: Mapping[str, str], mistakes: Mistakes) -> Iterator[pa.Table]:
    reads = [names.get(name, name) for name in _QUERY_READS]
    for file in files:
        for piece in record_pieces(file, _JUDGED, partial(parse_judged, names), reads, names):
            yield from piece.tables(mistakes)


def _queries(judged: Mapping[str, Sequence[DataFile]], names: Mapping[str, str], mistakes: Mistakes) -> pa.Table:
    texts: dict[str, str] = {}
    for split, files in judged.items():
        for table in _tables(files, names, mistakes):
            for query_id, text in zip(table["query_id"].to_pylist(), table["text"].to_pylist(), strict=True):
                if texts.setdefault(query_id, text) != text:
                    problem = f"query {query_id!r} is {shown(texts[query_id])} and {shown(text)}; ids must differ"
                    mistakes.add(_where(split, files), problem)
    return pa.table([list(texts), list(texts.values())], schema=QUERIES)


def _qrels(
    judged: Mapping[str, Sequence[DataFile]], names: Mapping[str, str], mistakes: Mistakes
) -> dict[str, pa.Table]:
    found = {}
    for split, files in judged.items():
        grades: dict[tuple[str, str], int] = {}
        # What is wrong with single records has been said where their queries were read.
        for table in _tables(files, names, Mistakes("")):
            for row in table.to_pylist():
                for grade, name in ((1, ID_LISTS[0]), (0, ID_LISTS[1])):
                    for doc_id in row[name]:
                        if grades.setdefault((row["query_id"], doc_id), grade) != grade:
                            problem = f"document {doc_id!r} is a positive and a negative of query {row['query_id']!r}"
                            mistakes.add(_where(split, files), f"{problem}; keep one of them")
        columns = [[q for q, _ in grades], [d for _, d in grades], list(grades.values())]
        found[split] = pa.table(columns, schema=QRELS)
    return found


def _where(split: str, files: Sequence[DataFile]) -> str:
    return files[0].where if len(files) == 1 else split
