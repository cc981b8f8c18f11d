"""What the columns of a table of texts are, as far as their names and their values say it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ranker.data.errors import DataError

LABELS = ("label", "labels", "score", "scores")
QUERIES = ("query", "anchor", "question", "query_text")
POSITIVES = ("positive", "positives", "pos", "answer", "response", "entailment")
DOCUMENTS = ("document", "documents", "doc", "docs", "passage", "passages", "candidates")
QUERY_IDS = ("query_id", "qid", "query-id")
DOC_IDS = ("doc_ids", "docids", "document_ids", "passage_ids", "doc_id", "docid", "document_id", "passage_id", "pid")
NEGATIVE = re.compile(r"(hard_?)?neg(ative)?s?(_?\d+)?|contradiction")
_IDS = re.compile(r"(.*[-_ .])?(id|ids|idx|index|guid|uuid)\d*|[qp]id\d*|docids?")
# Written by pandas beside the columns of a table.
_INDEX = re.compile(r"__.*__|Unnamed: ?\d+|")
# What a document has beside its id: such a table is a corpus, not examples.
_OF_A_DOCUMENT = {"title", "text", "document_text", "contents", "body", "passage", "url"}
NO_TEXTS = {
    "url", "source", "lang", "language", "type", "category", "task", "prompt", "instruction", "dataset", "subset",
    "domain", "date", "author", "metadata", "split",
}  # fmt: skip


def _is_id(name: str) -> bool:
    return _IDS.fullmatch(name.lower()) is not None


def is_role(name: str) -> bool:
    """Whether the name of a column says what it is."""
    return bool(name in (*LABELS, *QUERIES, *POSITIVES, *DOCUMENTS, *QUERY_IDS, *DOC_IDS) or NEGATIVE.fullmatch(name))


class Columns:
    """Columns sorted by what they hold."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.kinds = kinds
        given = [name for name in LABELS if name in kinds]
        self.label = given[0] if given else None
        # Beside a label, scores are a teacher's.
        self.score = next((n for n in given[1:] if n.startswith("score")), None) if self.label in LABELS[:2] else None
        self.query_id = next((name for name in QUERY_IDS if name in kinds), QUERY_IDS[0])
        self.doc_ids = next((name for name in DOC_IDS if name in kinds), None)

    def of(self, kind: str) -> list[str]:
        """Columns of this kind that are neither ids nor labels."""
        return [
            name for name, each in self.kinds.items()
            if each == kind and name not in LABELS and not _is_id(name) and not _INDEX.fullmatch(name)
        ]  # fmt: skip

    @property
    def is_corpus(self) -> bool:
        """Whether each row has an id, and nothing but what one document or query has."""
        has_id = any(_is_id(name) for name in self.kinds)
        return has_id and self.label is None and not self.of("texts") and set(self.of("text")) <= _OF_A_DOCUMENT

    def unlabelled(self) -> None:
        """Refuse numbers that may be the label."""
        numbers = self.of("number") + self.of("numbers")
        if self.label is None and numbers:
            raise DataError(f'column {numbers[0]!r} holds numbers; if it is the label say {{"label": "{numbers[0]}"}}')


def _kind(name: str, values: Sequence[Any]) -> str:
    """Text, texts, number, numbers or another; what most of the values are."""
    counts = Counter(kind for value in values if (kind := _kind_of(value)) is not None)
    if not counts:
        # Nothing to be seen: what is wrong with the values is said record by record.
        plural = name in ("documents", "docs", "passages", "candidates", "negatives", "positives")
        return "texts" if plural else "text" if is_role(name) else "nothing"
    return counts.most_common(1)[0][0]


def _kind_of(value: Any) -> str | None:
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list | tuple):
        inner = next((each for each in value if each is not None), None)
        return {"text": "texts", "number": "numbers"}.get(_kind_of(inner) or "", None if inner is None else "another")
    return None if value is None else "another"


def columns_of(found: Sequence[str], sample: Sequence[Mapping[str, Any]]) -> Columns:
    """The columns of these names, with the kinds that their values in the sample have."""
    return Columns({name: _kind(name, [record.get(name) for record in sample]) for name in found})
