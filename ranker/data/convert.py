"""A source in one format, written in another."""

import logging
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ranker.data.errors import DataError
from ranker.data.inspection.judged import judged_ids, unjudged_queries
from ranker.data.opening import open_source
from ranker.data.paths import known_formats, open_path
from ranker.data.source import ExampleSource, Source, no_tables
from ranker.data.splits import Splits
from ranker.data.store import Reading, store_source
from ranker.registry import nearest

log = logging.getLogger(__name__)


def convert(source: str, folder: str | Path, to: str, *, lossy: bool = False, **options: Any) -> dict[str, Any]:
    """Write ``folder`` in the format ``to``, whole or not at all; what was written, in numbers.

    Args:
        source: see :mod:`ranker.data.catalog`. folder: must not exist, or be empty.
        to: a name in :func:`ranker.data.paths.known_formats`. lossy: what it cannot say is changed or left out;
            otherwise that is an error.
        options: of reading (``max_documents``, ``allow_missing``, ...), and of the source itself (``format``, ...).

    Raises:
        DataError: on an unknown format, source or option, a folder that holds something, mistakes in the source, and
            what the format cannot say.
    """
    formats, target = known_formats(), Path(folder).expanduser().absolute()
    if to not in formats:
        raise DataError(f"unknown format {to!r}; {nearest(to, list(formats))}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        # The writer says so too, but only when everything has been read.
        raise DataError(f"{folder}: is there already; name a folder that is not, or remove it")
    opened = open_source(source, **options)
    reading = Reading(**{field.name: options[field.name] for field in fields(Reading) if field.name in options})
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work:
        data = store_source(opened, Path(work), reading)
        formats[to].write(target, data, lossy)
        written = open_path(target, format=to)
        if isinstance(written, Source) and written.triples is no_tables:
            data = replace(data, triples={})  # left out, which the caller allowed
        return {"folder": str(folder), "format": to, **_counts(data, isinstance(written, ExampleSource))}


def _counts(data: Splits, holds_examples: bool) -> dict[str, Any]:
    """What was written; in training examples stands nothing that is not judged."""
    documents, queries = data.corpus.num_rows, data.queries.num_rows
    if holds_examples:
        judged = judged_ids(data)
        documents = len(judged) - len(data.corpus.missing(judged))
        queries -= unjudged_queries(data).count
        if left := data.corpus.num_rows - documents:
            log.warning("%s: %d documents without a judgement are left out of the examples", data.name, left)
    counts: dict[str, Any] = {
        "name": data.name,
        "documents": documents,
        "queries": queries,
        "judgements": {split: table.num_rows for split, table in data.qrels.items()},
    }
    if holds_examples:
        return counts
    if data.run is not None:
        counts["candidates"] = data.run.num_rows
    if data.triples:
        counts["triples"] = {split: table.num_rows for split, table in data.triples.items()}
    return counts
