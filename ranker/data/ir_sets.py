"""Data sets of ``ir_datasets`` by id: https://ir-datasets.com ; fetched once, then read from its cache."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.errors import DataError, Mistakes
from ranker.data.pairs import codes, pair_codes
from ranker.data.pieces import tables_of
from ranker.data.source import Source
from ranker.data.splits import SYNONYMS
from ranker.schemas import CORPUS, ID_TRIPLES, QRELS, QUERIES, RUN, SPLITS

log = logging.getLogger(__name__)

PREFIX = "ir_datasets:"
# What a part of an id says about its split: train, dev and test by all their names.
_SPLIT_NAMES = {name: split for split in SPLITS for name in (split, *SYNONYMS[split])}
# Its own defaults wait 15 s three times a mirror; without a network that looks like a hang.
_IMPATIENT = {"IR_DATASETS_DL_TIMEOUT": "6", "IR_DATASETS_DL_TRIES": "2"}
# TREC DL: "binary measures treat 2 and 3 as relevant" (arXiv:2003.07820); DL-Hard is made of the same judgements.
_GRADED_FROM_2 = ("trec-dl-20", "trec-dl-hard")


def open_ir_dataset(identifier: str | Mapping[str, str], *, max_triples: int = 0, candidates: bool = True) -> Source:
    """A data set of ir_datasets with every split below it, or several ids that share a corpus.

    Args:
        identifier: ``beir/scifact`` (its ``/train``, ``/dev``, ``/test`` are found), ``beir/scifact/test``
            (that split alone; test where the id names none), or ``{"train": id, "dev": id}``.
        max_triples: of the training triples that the data set publishes, the first so many.
        candidates: also read the ranked lists that it publishes, for other splits than train.

    Raises:
        DataError: on an unknown id, or triples of an id without a train split. Reading one that is neither cached nor
            fetched in a few seconds raises it too.
    """
    import ir_datasets

    ids = {"": identifier} if isinstance(identifier, str) else dict(identifier)
    opened = {split: _opened(ir_datasets, name) for split, name in ids.items()}
    if isinstance(identifier, str):
        ids, opened = _splits_of(ir_datasets, identifier, opened[""])
    name = next(iter(ids.values())) if isinstance(identifier, Mapping) else identifier
    if max_triples and "train" not in opened:
        raise DataError(
            f"max_triples {max_triples}: ir_datasets:{name} gives the splits {sorted(opened)}, and triples are for "
            "train; leave max_triples out, or name an id with a train split"
        )
    sources = _Sources(ids, opened, max_triples, candidates)
    return Source(
        name=name.replace("/", "-"),
        format="ir_datasets",
        corpus=[IrDocuments(next(iter(ids.values())))],
        queries=sources.queries,
        qrels=sources.qrels,
        run=sources.run,
        triples=sources.triples,
        relevance_levels={split: 2 for split, each in ids.items() if any(mark in each for mark in _GRADED_FROM_2)},
        corpus_name=f"the documents of ir_datasets:{name}",
        queries_name=f"the queries of ir_datasets:{name}",
    )


def _opened(library: Any, name: str) -> Any:
    try:
        return library.load(name)
    except KeyError:
        raise DataError(
            f"ir_datasets has no data set {name!r}; its ids are listed at https://ir-datasets.com/all.html, "
            "such as ir_datasets:beir/scifact"
        ) from None


def _splits_of(library: Any, name: str, whole: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """Split -> id, and split -> data set."""
    if whole.has_qrels():
        split = next((_SPLIT_NAMES[part] for part in reversed(name.split("/")) if part in _SPLIT_NAMES), "test")
        return {split: name}, {split: whole}
    ids: dict[str, str] = {}
    found: dict[str, Any] = {}
    for part, split in _SPLIT_NAMES.items():
        try:
            below = library.load(f"{name}/{part}")
        except KeyError:
            continue
        if split not in found and below.has_qrels() and below.has_queries():
            ids[split], found[split] = f"{name}/{part}", below
    if not found or not whole.has_docs():
        raise DataError(f"ir_datasets:{name} has no judgements below it; choose a narrower id, such as {name}/dev")
    return ids, found


@dataclass(frozen=True)
class IrDocuments:
    """All documents of a data set, in its own order."""

    name: str

    @property
    def num_bytes(self) -> int:
        """Not known; it is one stream, which one process reads."""
        return 0

    def tables(self, mistakes: Mistakes) -> Iterator[pa.Table]:
        """CORPUS. A document type without a field ``text`` is read as it says itself: ``default_text()``."""
        import ir_datasets

        with fetched(self.name):
            yield from tables_of((_row(doc) for doc in ir_datasets.load(self.name).docs_iter()), CORPUS)

    def places(self, doc_ids: set[str]) -> Iterator[tuple[str, str]]:
        """Number of the document in the order of the data set."""
        import ir_datasets

        for number, doc in enumerate(ir_datasets.load(self.name).docs_iter(), 1):
            if doc.doc_id in doc_ids:
                yield doc.doc_id, f"ir_datasets:{self.name}, document {number}"


def _row(doc: Any) -> tuple[str, str, str]:
    if hasattr(doc, "text"):
        return doc.doc_id, getattr(doc, "title", "") or "", doc.text or ""
    # The title, where there is one, is a part of what it says of itself.
    return doc.doc_id, "", doc.default_text() or ""


@dataclass(frozen=True)
class _Sources:
    """What hangs on the queries of the splits."""

    ids: Mapping[str, str]
    opened: Mapping[str, Any]
    max_triples: int
    candidates: bool

    def queries(self, mistakes: Mistakes) -> pa.Table:
        texts: dict[str, str] = {}
        for split, source in self.opened.items():
            with fetched(self.ids[split]):
                for query in source.queries_iter():
                    text = query.text if hasattr(query, "text") else query.default_text()
                    if texts.setdefault(query.query_id, text) != text:
                        place = f"ir_datasets:{self.ids[split]}"
                        mistakes.add(place, f"query {query.query_id!r} has another text in another split; read one")
        return pa.table([list(texts), list(texts.values())], schema=QUERIES)

    def qrels(self, mistakes: Mistakes) -> dict[str, pa.Table]:
        found = {}
        for split, source in self.opened.items():
            with fetched(self.ids[split]):
                rows = ((each.query_id, each.doc_id, each.relevance) for each in source.qrels_iter())
                found[split] = judged_once(_table(rows, QRELS), f"ir_datasets:{self.ids[split]}")
        return found

    def run(self, mistakes: Mistakes) -> pa.Table | None:
        tables = []
        for split, source in self.opened.items():
            if self.candidates and split != "train" and source.has_scoreddocs():
                with fetched(self.ids[split]):
                    rows = ((each.query_id, each.doc_id, each.score, 0) for each in source.scoreddocs_iter())
                    tables.append(ranked(_table(rows, RUN)))
        return pa.concat_tables(tables) if tables else None

    def triples(self, mistakes: Mistakes) -> dict[str, pa.Table]:
        source = self.opened.get("train")
        if not self.max_triples or source is None:
            return {}
        if not source.has_docpairs():
            raise DataError(f"ir_datasets:{self.ids['train']} publishes no training triples; leave max_triples out")
        with fetched(self.ids["train"]):
            pairs = islice(source.docpairs_iter(), self.max_triples)
            return {"train": _table(((p.query_id, p.doc_id_a, p.doc_id_b) for p in pairs), ID_TRIPLES)}


def _table(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Millions of rows without as many Python tuples at once."""
    return pa.concat_tables([schema.empty_table(), *tables_of(iter(rows), schema)])


def judged_once(qrels: pa.Table, place: str) -> pa.Table:
    """QRELS with each pair once: of two judgements the last counts, as ir_measures counts them."""
    frame = qrels.to_pandas()
    pair = ["query_id", "doc_id"]
    if changed := int(frame.drop_duplicates().duplicated(pair).sum()):
        log.warning("%s: %d judgements contradict an earlier one of the same document; the last counts", place, changed)
    return qrels.filter(pa.array(~frame.duplicated(pair, keep="last").to_numpy()))


def ranked(run: pa.Table) -> pa.Table:
    """RUN with ranks by falling score, each document once; equal scores stay in the order of the file."""
    queries = codes(run["query_id"])[0]
    order = pa.table({"query": queries, "score": run["score"]})
    places = pc.sort_indices(order, [("query", "ascending"), ("score", "descending")]).to_numpy()  # stable
    _, first = np.unique(pair_codes(run)[places], return_index=True)
    kept = places[np.sort(first)]
    _, starts, sizes = np.unique(queries[kept], return_index=True, return_counts=True)
    ranks = np.arange(len(kept)) - np.repeat(starts, sizes) + 1
    return run.take(pa.array(kept)).set_column(3, RUN.field("rank"), pa.array(ranks, pa.int32()))


def _is_no_failure(record: logging.LogRecord) -> bool:
    """Each try and each mirror that fails is told on its own; the error at the end says it once."""
    return not record.getMessage().lower().startswith("download ")


@contextmanager
def fetched(name: str) -> Iterator[None]:
    """Impatient downloads, and one clear error for everything that goes wrong in them."""
    before = {key: os.environ.get(key) for key in _IMPATIENT}
    for key, value in _IMPATIENT.items():
        os.environ.setdefault(key, value)
    downloads = logging.getLogger("ir_datasets")
    downloads.addFilter(_is_no_failure)
    try:
        yield
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # requests, hash, archive and disk errors of many libraries
        from ir_datasets.util import home_path

        raise DataError(
            f"ir_datasets:{name} is not in {home_path()} and could not be fetched or read "
            f"({type(error).__name__}: {str(error)[:200]}). On a machine with a network run "
            f"`for part in docs queries qrels; do ir_datasets export {name} $part > /dev/null; done` and copy that "
            "folder here (IR_DATASETS_HOME names another place), or point data.source at a copy in BEIR, TREC or MS "
            "MARCO layout"
        ) from error
    finally:
        downloads.removeFilter(_is_no_failure)
        for key in [key for key, value in before.items() if value is None]:
            os.environ.pop(key, None)
