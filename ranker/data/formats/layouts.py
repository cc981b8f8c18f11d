"""Layouts of training examples: recognised from column names and a few records, then one record is one EXAMPLES row.

Nothing here knows of files: a record is a line of JSON, a row of Parquet, of a CSV file, or of the library `datasets`.

- FlagEmbedding: https://github.com/FlagOpen/FlagEmbedding/tree/master/examples/finetune
- Tevatron: https://github.com/texttron/tevatron, with the passages in the record
- sentence-transformers: see :mod:`ranker.data.formats.column_layouts`
- MS MARCO question answering: https://huggingface.co/datasets/microsoft/ms_marco
- Quora duplicate questions: https://quoradata.quora.com/First-Quora-Dataset-Release-Question-Pairs
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ranker.data.errors import DataError, Mistakes
from ranker.data.formats.column_layouts import COLUMN_FORMS, column_layout
from ranker.data.formats.column_roles import LABELS, is_role
from ranker.data.formats.record_fields import TEXT, Fields, Place
from ranker.data.pieces import Row
from ranker.registry import nearest

log = logging.getLogger(__name__)

# What a record of Tevatron holds when its documents lie in a corpus of their own.
ID_LISTS = ("positive_document_ids", "negative_document_ids")
QUERY_TEXTS = ("query_text", "query")
_PASSAGE = 'an object such as {"docid": "7", "title": "", "text": "..."}'
_SELECTED = 'an object such as {"is_selected": [0, 1], "passage_text": ["...", "..."]}'
_REMEDY = 'say which column is which with the option columns, such as {"query": "question", "positive": "answer"}'
_ROLES = ("query", "positive", "negative", "document", "documents", "label", "labels", "scores", "query_id", "doc_ids")


@dataclass(frozen=True)
class Layout:
    """What the fields of a record mean. It can be sent to another process.

    Args:
        name: a name in LAYOUTS. build: the fields of a record to a row of EXAMPLES.
        reads: the columns that it looks at. names: our name -> the column's, where that is another.
    """

    name: str
    build: Callable[[Fields], Row | None]
    reads: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)

    def row(self, record: Mapping[str, Any], place: Place, mistakes: Mistakes) -> Row | None:
        """A row of EXAMPLES; None, and a mistake for every field that is wrong, where the record is none."""
        return self.build(Fields(record, place, mistakes, self.names))


@dataclass(frozen=True)
class _Named:
    """A layout whose columns have fixed names.

    Args:
        form: for an error message. needed: columns that must be there, one name of each. others: that are read too.
    """

    form: str
    needed: tuple[tuple[str, ...], ...]
    others: tuple[str, ...]
    build: Callable[[Fields], Row | None]

    def fits(self, found: Sequence[str]) -> bool:
        return all(any(name in found for name in names) for names in self.needed)

    @property
    def reads(self) -> tuple[str, ...]:
        return (*(name for names in self.needed for name in names), *self.others)


def _flagembedding(fields: Fields) -> Row | None:
    positives, negatives = fields.texts("pos"), fields.texts("neg", optional=True)
    scores = [
        *fields.numbers("pos_scores", len(positives), nullable=True),
        *fields.numbers("neg_scores", len(negatives), nullable=True),
    ]
    return fields.example(
        "query",
        positives + negatives,
        [1.0] * len(positives) + [0.0] * len(negatives),
        query_ids=("query_id", "id"),
        scores=scores if any(score is not None for score in scores) else None,
    )


def _tevatron(fields: Fields) -> Row | None:
    if not fields.has("positive_passages"):
        fields.refuse("positive_passages", f"a list of passages, each {_PASSAGE}")
    positives, negatives = _passages(fields, "positive_passages"), _passages(fields, "negative_passages")
    documents, doc_ids = [text for text, _ in positives + negatives], [d for _, d in positives + negatives if d]
    if doc_ids and len(doc_ids) < len(documents):
        fields.wrong(f"{len(documents) - len(doc_ids)} of its {len(documents)} passages have no docid; give all one")
    return fields.example(
        next((name for name in QUERY_TEXTS if fields.has(name)), "query"),
        documents,
        [1.0] * len(positives) + [0.0] * len(negatives),
        query_ids=("query_id",),
        doc_ids=doc_ids or None,
    )


def _passages(fields: Fields, name: str) -> list[tuple[str, str | None]]:
    """(text, docid) of each passage; a title stands before the text, as everywhere in the house."""
    value = fields.value(name)
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        fields.refuse(name, "a list of passages")
        return []
    found = []
    for position, passage in enumerate(value):
        part = f"[{position}]"
        if not isinstance(passage, Mapping):
            fields.refuse(name, _PASSAGE, value=passage, part=part)
            continue
        doc_id, title, text = passage.get("docid"), passage.get("title"), passage.get("text")
        if not isinstance(text, str) or not isinstance(title, str | None):
            wrong, noun = (text, "text") if not isinstance(text, str) else (title, "title")
            fields.refuse(name, TEXT, value=wrong, part=f"{part}.{noun}")
            continue
        joined = fields.checked_text(f"{title} {text}".strip() if title else text, name, f"{part}.text")
        found.append((joined, None if doc_id is None else fields.checked_identifier(doc_id, name, f"{part}.docid")))
    return found


def _ms_marco(fields: Fields) -> Row | None:
    passages = fields.value("passages")
    if _are_objects(passages):  # its first version
        passages = {name: [each.get(name) for each in passages] for name in ("is_selected", "passage_text")}
    if not isinstance(passages, Mapping):
        fields.refuse("passages", _SELECTED)
        return None
    inner = Fields(passages, fields.place, fields.mistakes)
    documents = inner.texts("passage_text")
    labels = inner.labels("is_selected", len(documents))
    fields.num_wrong += inner.num_wrong
    return fields.example("query", documents, labels, query_ids=("query_id",))


def _are_objects(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(each, Mapping) for each in value)


def _quora(fields: Fields) -> Row | None:
    blank = [name for name in ("question1", "question2") if not str(fields.value(name) or "").strip()]
    if blank:  # as published a few pairs lack one of their questions: nobody can mend them
        log.warning("%s: %s is empty; the pair is left out", fields.place(), " and ".join(blank))
        return None
    return fields.example(
        "question1",
        [fields.text("question2")],
        [fields.number("is_duplicate")],
        query_ids=("qid1",),
        doc_ids=fields.identifiers("qid2", 1),
    )


_NAMED: Mapping[str, _Named] = {
    "flagembedding": _Named(
        "query, pos (a list of texts), neg, and pos_scores, neg_scores",
        (("query",), ("pos",)),
        ("neg", "pos_scores", "neg_scores", "query_id", "id"),
        _flagembedding,
    ),
    "tevatron": _Named(
        "query_id, query, positive_passages (a list of docid, title, text), negative_passages",
        (QUERY_TEXTS, ("positive_passages",)),
        ("query_id", "negative_passages"),
        _tevatron,
    ),
    "ms_marco": _Named(
        "query, passages (is_selected and passage_text, lists)",
        (("query",), ("passages",)),
        ("query_id",),
        _ms_marco,
    ),
    "quora": _Named(
        "question1, question2, is_duplicate, and qid1, qid2",
        (("question1",), ("question2",), ("is_duplicate",)),
        ("qid1", "qid2"),
        _quora,
    ),
}
# Their order is the order in which they are tried.
LAYOUTS: Mapping[str, str] = {
    **{name: layout.form for name, layout in _NAMED.items()},
    "sentence-transformers": COLUMN_FORMS,
}
_FIELDS = sorted({name for layout in _NAMED.values() for name in layout.reads} | {*ID_LISTS})


def recognise(
    found: Sequence[str],
    sample: Sequence[Mapping[str, Any]],
    *,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Layout:
    """The layout of records.

    Args:
        found: names of the columns, in their order. sample: the first few records.
        layout: a name in LAYOUTS. None: the first that fits.
        columns: our name -> the column that holds it, such as ``{"query": "question"}``. With it, other columns count
            only when their names are known ones.

    Raises:
        DataError: on a name that is not known, or listing the columns and the known layouts.
    """
    names = _checked_names(found, columns or {}, layout)
    ours = {theirs: mine for mine, theirs in names.items()}
    seen = {ours.get(name, name): name for name in found if name in ours or name not in names}
    if columns:
        seen = {mine: name for mine, name in seen.items() if mine in names or _is_known(mine, names)}
    records = [{mine: record.get(name) for mine, name in seen.items()} for record in sample]
    if any(name in seen for name in ID_LISTS):
        raise DataError(
            f"columns {list(found)} hold ids of documents, whose texts lie in a corpus: open the folder that holds both"
        )
    if layout in _NAMED or layout is None:
        each = _named(list(seen), records, layout)
        if each is not None:
            return Layout(each, _NAMED[each].build, _theirs(_NAMED[each].reads, names), names)
    if layout in _NAMED:
        raise DataError(f"columns {list(found)} are not those of {layout}: {LAYOUTS[str(layout)]}; {_REMEDY}")
    try:
        build = column_layout(list(seen), records)
    except DataError as error:
        known = "\n".join(f"  {each}: {form}" for each, form in LAYOUTS.items())
        raise DataError(f"columns {list(found)}: {error}; {_REMEDY}; known layouts are\n{known}") from None
    return Layout("sentence-transformers", build, _theirs(build.reads, names), names)


def _is_known(name: str, names: Mapping[str, str]) -> bool:
    """Whether a column that was not named by the caller counts; no label does where another was named."""
    return (name in _FIELDS or is_role(name)) and not (name in LABELS and any(label in names for label in LABELS))


def _named(seen: Sequence[str], records: Sequence[Mapping[str, Any]], layout: str | None) -> str | None:
    """The layout that these names fit, or the one that is asked for, if they do."""
    for name, named in _NAMED.items():
        # Others too call a list of texts passages.
        passages = [record.get("passages") for record in records] if name == "ms_marco" and layout is None else [{}]
        likely = any(isinstance(each, Mapping) or _are_objects(each) for each in passages)
        if layout in (None, name) and named.fits(seen) and likely:
            return name
    return None


def _theirs(reads: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(names.get(name, name) for name in reads)


def _checked_names(found: Sequence[str], columns: Mapping[str, str], layout: str | None) -> dict[str, str]:
    """``columns``, when its names are known ones on the left, and columns on the right."""
    mistakes = Mistakes("layout")
    if layout is not None and layout not in LAYOUTS:
        mistakes.add("", f"unknown layout {layout!r}; {nearest(layout, list(LAYOUTS))}")
    for theirs in sorted({name for name in columns.values() if list(columns.values()).count(name) > 1}):
        mistakes.add("", f"columns: {theirs!r} is given two meanings; choose one")
    for ours, theirs in columns.items():
        if ours not in _FIELDS and not is_role(ours):
            mistakes.add("", f"columns: unknown name {ours!r}; {nearest(ours, [*_FIELDS, *_ROLES])}")
        if theirs not in found:
            mistakes.add("", f"columns: no column {theirs!r} for {ours!r}; {nearest(theirs, list(found))}")
    mistakes.raise_if_any()
    return dict(columns)
