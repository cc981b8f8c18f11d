"""Training examples as sentence-transformers lays them out: what a column means follows from its place and its type.

Texts count in the order of their columns: (query, positive), (query, positive, negative_1, ..., negative_n). A column
called label, labels, score or scores is the label. Where the names say which text is which, they win over the order.
https://sbert.net/docs/cross_encoder/training_overview.html#dataset-format
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ranker.data.errors import DataError
from ranker.data.formats.column_roles import (
    DOCUMENTS,
    LABELS,
    NEGATIVE,
    NO_TEXTS,
    POSITIVES,
    QUERIES,
    Columns,
    columns_of,
)
from ranker.data.formats.record_fields import Fields
from ranker.data.pieces import Row

COLUMN_FORMS = (
    "(query, positive), (query, positive, negative_1, ..., negative_n), either with a label, (text, text, label), "
    "(query, documents, labels), (query, text, text, margin)"
)


@dataclass(frozen=True)
class Texts:
    """(query, positive, negative, ...), each a column of texts or of lists of texts.

    Args:
        label: a column with the teacher's scores of all documents, or with the margins of the positive over each
            negative (https://arxiv.org/abs/2010.02666); None: there is none.
    """

    query: str
    positive: str
    negatives: tuple[str, ...]
    label: str | None
    query_id: str

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns."""
        label = () if self.label is None else (self.label,)
        return (self.query_id, self.query, self.positive, *self.negatives, *label)

    def __call__(self, fields: Fields) -> Row | None:
        """A row of EXAMPLES; of several negatives those that are null are left out."""
        positives = fields.texts(self.positive)
        negatives = [text for name in self._present(fields) for text in fields.texts(name)]
        documents = positives + negatives
        if self.label is None:
            _refuse_label(fields)
        return fields.example(
            self.query,
            documents,
            [1.0] * len(positives) + [0.0] * len(negatives),
            query_ids=(self.query_id,),
            scores=self._scores(fields, len(documents)) if self.label is not None else None,
        )

    def _present(self, fields: Fields) -> list[str]:
        # A line of JSON may have more of them than the lines that were looked at first.
        names = list(self.negatives)
        if names and NEGATIVE.fullmatch(names[0]):
            known = {*names, *fields.names, *fields.names.values()}
            names += [name for name in fields.record if name not in known and NEGATIVE.fullmatch(name)]
        return [name for name in names if fields.has(name)] or names[:1]

    def _scores(self, fields: Fields, count: int) -> list[float | None] | None:
        name = str(self.label)
        value = fields.value(name)
        if value is None:
            fields.refuse(name, "a number, or a list of them")
            return None
        margins = not isinstance(value, list | tuple) or len(value) == count - 1
        if not margins or count < 2:
            return fields.numbers(name, count, nullable=True)
        found = fields.labels(name, count - 1)
        # Only differences matter to who learns from margins: the first negative is put at 0.
        return [found[0], *(found[0] - margin for margin in found)] if found else None


def _refuse_label(fields: Fields) -> None:
    for name in LABELS:
        if fields.has(name) and name not in fields.names.values():
            fields.refuse(name, "missing or null, as in the first records of the file; give all a label, or none")


@dataclass(frozen=True)
class Pair:
    """(query, document, label). ``label`` None: the document is a positive. ``score``: a teacher's, or None."""

    query: str
    document: str
    label: str | None
    score: str | None
    query_id: str
    doc_id: str | None

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns."""
        columns = (self.query_id, self.query, self.document, self.label, self.score, self.doc_id)
        return tuple(name for name in columns if name is not None)

    def __call__(self, fields: Fields) -> Row | None:
        """A row of EXAMPLES with one document."""
        has_score = self.score is not None and fields.has(self.score)
        if self.label is None:
            _refuse_label(fields)
        return fields.example(
            self.query,
            [fields.text(self.document)],
            [1.0 if self.label is None else fields.number(self.label)],
            query_ids=(self.query_id,),
            doc_ids=None if self.doc_id is None else fields.identifiers(self.doc_id, 1),
            scores=[fields.number(str(self.score))] if has_score else None,
        )


@dataclass(frozen=True)
class LabelledList:
    """(query, documents, labels): lists as long as each other."""

    query: str
    documents: str
    labels: str
    scores: str | None
    query_id: str
    doc_ids: str | None

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns."""
        columns = (self.query_id, self.query, self.documents, self.labels, self.scores, self.doc_ids)
        return tuple(name for name in columns if name is not None)

    def __call__(self, fields: Fields) -> Row | None:
        """A row of EXAMPLES."""
        documents = fields.texts(self.documents)
        count, scores = len(documents), self.scores
        has_scores = scores is not None and fields.has(scores)
        return fields.example(
            self.query,
            documents,
            fields.labels(self.labels, count),
            query_ids=(self.query_id,),
            doc_ids=None if self.doc_ids is None else fields.identifiers(self.doc_ids, count),
            scores=fields.numbers(str(scores), count, nullable=True) if has_scores else None,
        )


ColumnLayout = Texts | Pair | LabelledList


def column_layout(found: Sequence[str], sample: Sequence[Mapping[str, Any]]) -> ColumnLayout:
    """What the columns are.

    Args:
        found: their names, in order. sample: records that tell their types.

    Raises:
        DataError: saying why they are no training examples.
    """
    table = columns_of(found, sample)
    if table.is_corpus:
        raise DataError("an id, and texts of one document: these are documents or queries, and no examples")
    return _with_list(table) if table.of("texts") else _with_texts(table)


def _texts(texts: Sequence[str], table: Columns) -> Texts:
    labels = [name for name in LABELS if name in table.kinds]
    if len(labels) > 1:
        raise DataError(f'columns {labels} are all called labels; name the one that counts, as {{"label": ...}}')
    return Texts(texts[0], texts[1], tuple(texts[2:]), table.label, table.query_id)


def _with_list(table: Columns) -> ColumnLayout:
    texts, lists = table.of("text"), table.of("texts")
    query = next((name for name in texts if name in QUERIES), texts[0] if len(texts) == 1 else None)
    positives = [name for name in [*texts, *lists] if name in POSITIVES]
    negatives = [name for name in [*texts, *lists] if NEGATIVE.fullmatch(name)]
    if query and len(positives) == 1 and {*lists} <= {*positives, *negatives}:
        table.unlabelled()
        return _texts([query, *positives, *negatives], table)
    numbers = table.of("numbers")
    labels = table.label or (numbers[0] if len(numbers) == 1 else None)
    named = [name for name in lists if name in DOCUMENTS]
    documents = lists if len(lists) == 1 else named
    if query is None or len(documents) != 1 or labels is None:
        raise DataError("lists of texts need one query, and one list of labels as long")
    doc_ids = table.doc_ids if table.kinds.get(table.doc_ids or "") not in ("text", "number") else None
    return LabelledList(query, documents[0], labels, table.score, table.query_id, doc_ids)


def _with_texts(table: Columns) -> ColumnLayout:
    if len(table.of("text")) < 2:
        raise DataError("no two columns of texts")
    table.unlabelled()
    texts = _in_order(table.of("text"))
    is_list = table.label is not None and table.kinds[table.label] == "numbers"
    if len(texts) == 2 and not is_list:
        doc_id = table.doc_ids if table.kinds.get(table.doc_ids or "") != "texts" else None
        return Pair(texts[0], texts[1], table.label, table.score, table.query_id, doc_id)
    if len(texts) > 3 and table.label is not None and not is_list:
        raise DataError(f"column {table.label!r} holds one number for {len(texts) - 1} documents; a list is needed")
    return _texts(texts, table)


def _in_order(texts: list[str]) -> list[str]:
    """Query, positive or document, negatives: by their names where these say all, as they stand otherwise."""
    queries = [name for name in texts if name in QUERIES]
    positives = [name for name in texts if name in POSITIVES]
    documents = positives or [name for name in texts if name in DOCUMENTS]
    negatives = [name for name in texts if NEGATIVE.fullmatch(name)]
    named = [*queries, *documents, *negatives]
    others = [name for name in texts if name not in named]
    if len(queries) == len(documents) == 1 and not others:
        return named
    doubtful = others if queries and positives else [name for name in others if name in NO_TEXTS]
    if queries and texts[0] not in queries:
        raise DataError(
            f"column {texts[0]!r} stands before {queries[0]!r}, and is called neither document nor negative"
        )
    if doubtful and len(texts) > 2:
        raise DataError(f"column {doubtful[0]!r} may be a negative or none")
    return texts
