"""Data sets of ``ir_datasets`` by id: https://ir-datasets.com ; fetched once, then read from its cache."""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from ranker.data.errors import DataError
from ranker.data.splits import Splits, sample_splits
from ranker.schemas import CORPUS, QRELS, QUERIES

log = logging.getLogger(__name__)

PREFIX = "ir_datasets:"
_SPLIT_NAMES = ("train", "dev", "test", "validation")
# Its own defaults wait 15 s three times a mirror; without a network that looks like a hang.
_IMPATIENT = {"IR_DATASETS_DL_TIMEOUT": "6", "IR_DATASETS_DL_TRIES": "2"}
_CHUNK = 100_000


def read_ir_dataset(
    identifier: str | Mapping[str, str],
    *,
    max_documents: int | None = None,
    max_queries: int | None = None,
    seed: int = 0,
) -> Splits:
    """A data set of ir_datasets with every split below it, or several ids that share a corpus.

    Args:
        identifier: ``beir/scifact`` (its ``/train``, ``/dev``, ``/test`` are found), ``beir/scifact/test``
            (that split alone), or ``{"train": id, "dev": id}``.
        max_documents, max_queries: seeded sample, see :func:`ranker.data.splits.sample_splits`.
        seed: of the sample.

    Raises:
        DataError: on an unknown id, or on one that is neither cached nor fetched in a few seconds.
    """
    import ir_datasets

    ids = {"": identifier} if isinstance(identifier, str) else dict(identifier)
    opened = {split: _opened(ir_datasets, name) for split, name in ids.items()}
    if isinstance(identifier, str):
        opened = _splits_of(ir_datasets, identifier, opened[""])
    first = next(iter(opened.values()))
    name = ids[next(iter(ids))]
    with _fetched(name):
        corpus = _corpus(first, name)
        queries, qrels = _queries(opened.values()), {split: _qrels(source) for split, source in opened.items()}
    data = Splits(name.replace("/", "-"), corpus, queries, qrels)
    return sample_splits(data, max_documents, max_queries, seed)


def _opened(library: Any, name: str) -> Any:
    try:
        return library.load(name)
    except KeyError:
        raise DataError(
            f"ir_datasets has no data set {name!r}; its ids are listed at https://ir-datasets.com/all.html, "
            "such as ir_datasets:beir/scifact"
        ) from None


def _splits_of(library: Any, name: str, whole: Any) -> dict[str, Any]:
    if whole.has_qrels():
        last = name.rpartition("/")[2]
        return {last if last in _SPLIT_NAMES else "test": whole}
    found = {}
    for split in _SPLIT_NAMES:
        try:
            below = library.load(f"{name}/{split}")
        except KeyError:
            continue
        if below.has_qrels() and below.has_queries():
            found["dev" if split == "validation" else split] = below
    if not found or not whole.has_docs():
        raise DataError(f"ir_datasets:{name} has no judgements below it; choose a narrower id, such as {name}/dev")
    return found


@contextmanager
def _fetched(name: str) -> Iterator[None]:
    """Impatient downloads, and one clear error for everything that goes wrong in them."""
    before = {key: os.environ.get(key) for key in _IMPATIENT}
    for key, value in _IMPATIENT.items():
        os.environ.setdefault(key, value)
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # requests, hash, archive and disk errors of many libraries
        from ir_datasets.util import home_path

        raise DataError(
            f"ir_datasets:{name} is not in {home_path()} and could not be fetched "
            f"({type(error).__name__}: {str(error)[:200]}). On a machine with a network run "
            f"`ir_datasets export {name} docs > /dev/null` and copy that folder here (IR_DATASETS_HOME names another "
            "place), or point data.source at a copy in BEIR layout"
        ) from error
    finally:
        for key in [key for key, value in before.items() if value is None]:
            os.environ.pop(key, None)


def _corpus(source: Any, name: str) -> pa.Table:
    tables, start, total = [], time.monotonic(), 0
    for rows in _chunks((doc.doc_id, _title(doc), _body(doc)) for doc in source.docs_iter()):
        tables.append(pa.table([list(column) for column in zip(*rows, strict=True)], schema=CORPUS))
        total += len(rows)
        log.info("%s: %d documents, %.0f a second", name, total, total / (time.monotonic() - start))
    return pa.concat_tables(tables) if tables else CORPUS.empty_table()


def _chunks(rows: Iterable[tuple[str, str, str]]) -> Iterator[list[tuple[str, str, str]]]:
    chunk: list[tuple[str, str, str]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _title(document: Any) -> str:
    return getattr(document, "title", "") or ""


def _body(document: Any) -> str:
    if hasattr(document, "text"):
        return document.text or ""
    return document.default_text()  # every document type of ir_datasets says what to read of it


def _queries(sources: Iterable[Any]) -> pa.Table:
    texts: dict[str, str] = {}
    for source in sources:
        for query in source.queries_iter():
            texts.setdefault(query.query_id, query.text if hasattr(query, "text") else query.default_text())
    return pa.table([list(texts), list(texts.values())], schema=QUERIES)


def _qrels(source: Any) -> pa.Table:
    rows = [(judged.query_id, judged.doc_id, judged.relevance) for judged in source.qrels_iter()]
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], []], schema=QRELS)
