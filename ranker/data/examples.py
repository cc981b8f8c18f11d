"""Training examples as views of one another; GROUPS is the one stored form.

A group is a query with its documents, each with a label. Pairs (query, document, label) and triples (query, positive,
negative) are what people hold in their hands.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ranker.data.errors import DataError, Mistakes, shown
from ranker.schemas import GROUPS, PAIRS, TRIPLES, require

FORMS = (
    "the path of a file that `ranker data inspect` knows; (query, positive, negative) or (query, document, label) "
    "tuples; dicts with these keys, with query, positives and negatives (lists, as HardNegativeMiner gives them), "
    "or with query, documents and labels; or an Arrow table of TRIPLES, PAIRS or GROUPS"
)


def groups_to_pairs(groups: pa.Table) -> pa.Table:
    """PAIRS: one row a document of GROUPS, in their order."""
    groups = require(groups, GROUPS, "groups")
    counts = _counts(groups)
    queries = groups["query"].take(pa.array(np.repeat(np.arange(groups.num_rows), counts)))
    documents = groups["documents"].combine_chunks().flatten()
    labels = groups["labels"].combine_chunks().flatten()
    return pa.table([queries.combine_chunks(), documents, labels], schema=PAIRS)


def groups_to_triples(groups: pa.Table) -> pa.Table:
    """TRIPLES: every pair of a document with a higher and one with a lower label of the same query."""
    rows = [
        (row["query"], better, worse)
        for row in require(groups, GROUPS, "groups").to_pylist()
        for better, high in zip(row["documents"], row["labels"], strict=True)
        for worse, low in zip(row["documents"], row["labels"], strict=True)
        if high > low
    ]
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], []], schema=TRIPLES)


def groups_to_lists(groups: pa.Table, max_documents: int | None = None, seed: int = 0) -> pa.Table:
    """Lists as listwise losses take them (query, documents, labels): at most ``max_documents`` of each group.

    Every document with a label above 0 stays, the highest labels first where they alone are too many; the others are a
    seeded sample, in the group's order. None: whole groups.
    """
    groups = require(groups, GROUPS, "groups")
    if max_documents is None:
        return groups.select(["query", "documents", "labels"])
    if max_documents < 2:
        raise DataError(f"max_documents {max_documents} must be at least 2: a list of one cannot be ordered")
    kept = [
        _kept(np.asarray(labels or [], dtype=np.float32), max_documents, np.random.default_rng([seed, row]))
        for row, labels in enumerate(groups["labels"].to_pylist())
    ]
    starts = np.cumsum([0, *_counts(groups)[:-1]])
    rows = [start + rows for start, rows in zip(starts, kept, strict=True)]
    places = np.concatenate([np.zeros(0, dtype=np.int64), *rows])
    offsets = pa.array(np.cumsum([0, *map(len, kept)]), pa.int32())
    columns = [
        pa.ListArray.from_arrays(offsets, groups[name].combine_chunks().flatten().take(pa.array(places, pa.int64())))
        for name in ("documents", "labels")
    ]
    return pa.table([groups["query"].combine_chunks(), *columns], names=["query", "documents", "labels"])


def _kept(labels: Any, max_documents: int, rng: np.random.Generator) -> Any:
    """Positions of the documents of a group that stay, in its order."""
    positives = np.flatnonzero(labels > 0)
    best = positives[np.argsort(-labels[positives], kind="stable")][:max_documents]
    others = rng.permutation(np.flatnonzero(labels <= 0))[: max_documents - len(best)]
    return np.sort(np.concatenate([best, others]))


def triples_to_groups(triples: pa.Table) -> pa.Table:
    """GROUPS: one a query, its different positives (label 1) first, then its different negatives (label 0).

    A document that is a positive of a query anywhere is never its negative.
    """
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for row in require(triples, TRIPLES, "triples").to_pylist():
        positives, negatives = found.setdefault(row["query"], ({}, {}))
        positives[row["positive"]] = None
        negatives[row["negative"]] = None
    labelled = {
        query: {**dict.fromkeys(positives, 1.0), **{text: 0.0 for text in negatives if text not in positives}}
        for query, (positives, negatives) in found.items()
    }
    return _as_groups(labelled)


def pairs_to_groups(pairs: pa.Table) -> pa.Table:
    """GROUPS: one a query, its different documents by falling label; graded labels stay, the highest of a text wins."""
    found: dict[str, dict[str, float]] = {}
    for row in require(pairs, PAIRS, "pairs").to_pylist():
        documents = found.setdefault(row["query"], {})
        documents[row["document"]] = max(row["label"], documents.get(row["document"], row["label"]))
    return _as_groups({q: dict(sorted(d.items(), key=lambda item: -item[1])) for q, d in found.items()})


def as_groups(samples: Any) -> pa.Table:
    """GROUPS from whatever training examples are at hand: see FORMS.

    Raises:
        DataError: naming the examples that are of no known form, or saying that nothing was given.
    """
    if isinstance(samples, pa.Table):
        return _checked(_table_to_groups(samples))
    if isinstance(samples, Path) or (isinstance(samples, str) and Path(samples).expanduser().exists()):
        from ranker.data.formats.example_files import read_examples

        return _checked(read_examples(samples, split="train").select(GROUPS.names))
    if isinstance(samples, Mapping | str) or not isinstance(samples, Iterable):
        raise DataError(f"training examples are a {type(samples).__name__}: {shown(samples)}; give {FORMS}")
    rows = [_unmined(row) for row in samples]
    if not rows:
        raise DataError(f"no training examples; give {FORMS}")
    schema = _form(rows[0])
    mistakes = Mistakes("training examples")
    columns = [value for number, row in enumerate(rows) if (value := _row(row, number, schema, mistakes)) is not None]
    mistakes.raise_if_any()
    return _checked(_table_to_groups(pa.Table.from_pylist(columns, schema=schema)))


def _unmined(row: Any) -> Any:
    """A result of HardNegativeMiner as documents and labels; anything else as it is."""
    if not isinstance(row, Mapping) or not {"query", "positives", "negatives"} <= set(row):
        return row
    positives, negatives = list(row["positives"]), list(row["negatives"])
    labels = [1.0] * len(positives) + [0.0] * len(negatives)
    return {**row, "documents": positives + negatives, "labels": labels}


def _form(row: Any) -> pa.Schema:
    if isinstance(row, Mapping):
        for schema, names in (
            (TRIPLES, TRIPLES.names),
            (PAIRS, PAIRS.names),
            (GROUPS, ["query", "documents", "labels"]),
        ):
            if set(names) <= set(row):
                return schema
        raise DataError(f"training example 0 has the keys {sorted(map(str, row))}; give {FORMS}")
    if isinstance(row, Sequence) and not isinstance(row, str) and len(row) == 3:
        return PAIRS if isinstance(row[2], int | float) else TRIPLES
    raise DataError(f"training example 0 is {shown(row)}; give {FORMS}")


def _row(row: Any, number: int, schema: pa.Schema, mistakes: Mistakes) -> dict[str, Any] | None:
    """One example as a row of ``schema``; None, and a mistake, when it is none."""
    place = f"example {number}"
    if isinstance(row, Mapping):
        record = {name: row.get(name) for name in schema.names}
        if schema is GROUPS:
            record["query_id"] = str(row.get("query_id", number))
    elif isinstance(row, Sequence) and not isinstance(row, str) and len(row) == len(schema.names):
        record = dict(zip(schema.names, row, strict=True))
    else:
        mistakes.add(place, f"{shown(row)} is no ({', '.join(schema.names)}) as example 0 is")
        return None
    texts = [name for name in ("query", "positive", "negative", "document") if name in record]
    wrong = [name for name in texts if not _is_text(record[name])]
    for name in wrong:
        mistakes.add(place, f"{name} is {shown(record[name])}; it must be a string that is not empty")
    if "label" in record and not isinstance(record["label"], int | float):
        mistakes.add(place, f"label is {shown(record['label'])}; it must be a number, 1 for relevant")
        return None
    if schema is GROUPS and not _is_group(record):
        mistakes.add(
            place, f"documents and labels are {shown(record)}; give lists of the same length, of texts and numbers"
        )
        return None
    return None if wrong else record


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_group(record: Mapping[str, Any]) -> bool:
    documents, labels = record["documents"], record["labels"]
    return (
        isinstance(documents, Sequence)
        and isinstance(labels, Sequence)
        and len(documents) == len(labels)
        and all(isinstance(text, str) for text in documents)
        and all(isinstance(label, int | float) for label in labels)
    )


def _table_to_groups(table: pa.Table) -> pa.Table:
    names = set(table.column_names)
    if {"query", "documents", "labels"} <= names:
        if "query_id" not in names:
            ids = pa.array([str(row) for row in range(table.num_rows)], pa.string())
            table = table.append_column("query_id", ids)
        return require(table, GROUPS, "groups").select(GROUPS.names)
    if set(TRIPLES.names) <= names:
        return triples_to_groups(table)
    if set(PAIRS.names) <= names:
        return pairs_to_groups(table)
    raise DataError(f"training examples are a table of the columns {table.column_names}; give {FORMS}")


def _checked(groups: pa.Table) -> pa.Table:
    """The groups, when each has as many labels as documents and one of them can teach something."""
    mistakes = Mistakes("training groups")
    if not groups.num_rows:
        raise DataError(f"no training examples; give {FORMS}")
    unequal = _counts(groups) != np.array([len(labels or []) for labels in groups["labels"].to_pylist()])
    for row in np.flatnonzero(unequal).tolist():
        mistakes.add(f"group {row}", "has another number of labels than of documents; give each document its label")
    mistakes.raise_if_any()
    return groups


def _counts(groups: pa.Table) -> Any:
    return np.array([len(documents or []) for documents in groups["documents"].to_pylist()], dtype=np.int64)


def _as_groups(labelled: Mapping[str, Mapping[str, float]]) -> pa.Table:
    columns = [
        [str(number) for number in range(len(labelled))],
        list(labelled),
        [list(documents) for documents in labelled.values()],
        [list(documents.values()) for documents in labelled.values()],
    ]
    return pa.table(columns, schema=GROUPS)
