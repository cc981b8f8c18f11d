"""Judgements as JSON lines: ``{"query-id", "corpus-id", "score"}``, as data sets of MTEB on the hub have them."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ranker.data.errors import Mistakes, shown
from ranker.data.files import DataFile, Line
from ranker.data.formats.json_lines import identifier_of, json_object
from ranker.data.formats.qrels import Judgements

QUERY_IDS = ("query-id", "query_id", "qid")
DOC_IDS = ("corpus-id", "corpus_id", "doc_id", "docid")
SCORES = ("score", "relevance", "label")


def read_json_qrels(file: DataFile, mistakes: Mistakes) -> pa.Table:
    """QRELS of a file with one judgement a line; without a score it is 1."""
    judged = Judgements()
    for line in file.lines(mistakes):
        record = json_object(line, mistakes)
        if record is None:
            continue
        query_id, doc_id = (identifier_of(record, line, mistakes, names) for names in (QUERY_IDS, DOC_IDS))
        relevance = _relevance(record, line, mistakes)
        if query_id is not None and doc_id is not None and relevance is not None:
            judged.add(query_id, doc_id, relevance, line, mistakes)
    return judged.table()


def _relevance(record: Mapping[str, Any], line: Line, mistakes: Mistakes) -> int | None:
    name = next((name for name in SCORES if name in record), None)
    value = 1 if name is None else record[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < 2**31 or value != int(value):
        mistakes.add(line, f'"{name}" is {shown(value)}; it must be a whole number: 1 for relevant, 0 for not')
        return None
    return int(value)
