"""Judgements as they are read: each pair once, and two that contradict each other are a mistake."""

import pyarrow as pa

from ranker.data.errors import Mistakes
from ranker.data.files import Line
from ranker.schemas import QRELS

HEADER_WORDS = frozenset({"query-id", "query_id", "qid", "queryid", "id", "query", "pid", "doc_id", "docid", "topic"})


class Judgements:
    """Collects (query, document) -> relevance in the order of the file."""

    def __init__(self) -> None:
        self._relevance: dict[tuple[str, str], int] = {}
        self._numbers: dict[tuple[str, str], int] = {}

    def add(self, query_id: str, doc_id: str, relevance: int, line: Line, mistakes: Mistakes) -> None:
        """Note one judgement; the same one again is ignored."""
        key = (query_id, doc_id)
        first = self._relevance.setdefault(key, relevance)
        if first == relevance:
            self._numbers.setdefault(key, line.number)
        else:
            where = line.file.place(self._numbers[key], line.span)
            mistakes.add(line, f"{key} has score {relevance} here and {first} at {where}; keep one of them")

    def table(self) -> pa.Table:
        """QRELS."""
        columns = [[q for q, _ in self._relevance], [d for _, d in self._relevance], list(self._relevance.values())]
        return pa.table(columns, schema=QRELS)


def whole_number(text: str) -> int | None:
    """``2``, ``-1`` and ``1.0`` as numbers; None for anything else, or what does not fit into 32 bits."""
    if not text.isascii() or "_" in text:  # 1_0 is a number to Python only
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() and abs(number) < 2**31 else None


def has_header(fields: list[str]) -> bool:
    """Whether the fields of a first line name columns: the last is no number, and the first is a known name.

    A first line that is neither a judgement nor a known header is a mistake like any other.
    """
    return whole_number(fields[-1]) is None and fields[0].strip().lower() in HEADER_WORDS
