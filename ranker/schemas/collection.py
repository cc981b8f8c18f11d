"""Corpus, queries and judgements as one thing."""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ranker.schemas.corpus import Corpus, TableCorpus
from ranker.schemas.tables import ID_TRIPLES, QRELS, QUERIES, RUN, document_texts, require


@dataclass(frozen=True, init=False)
class Collection:
    """Corpus, queries and judgements of one data set, cut to one split.

    Args:
        name: what the data set is called in logs and reports.
        split: ``train``, ``dev`` or ``test``; ``all`` when it was never split.
        corpus: the documents, a :class:`Corpus` or CORPUS in memory; kept as ``documents``.
        queries: QUERIES. qrels: QRELS, judgements of these queries only.
        run: candidates that the data set itself gives, RUN; None when it gives none.
        triples: training triples that the data set itself gives, ID_TRIPLES; None when it gives none.
        relevance_level: judgements from this number on count as relevant (2 in TREC DL).
        reserved: doc_ids that are relevant to queries of splits held out of this one: training examples never
            contain them. None: nothing was held out.
    """

    name: str
    split: str
    documents: Corpus
    queries: pa.Table
    qrels: pa.Table
    run: pa.Table | None
    triples: pa.Table | None
    relevance_level: int
    reserved: pa.Array | None

    def __init__(
        self,
        name: str,
        split: str,
        corpus: Corpus | pa.Table,
        queries: pa.Table,
        qrels: pa.Table,
        run: pa.Table | None = None,
        *,
        triples: pa.Table | None = None,
        relevance_level: int = 1,
        reserved: pa.Array | None = None,
    ) -> None:
        label = f"{name}/{split}"
        documents = corpus if isinstance(corpus, Corpus) else TableCorpus(corpus, f"{label} corpus")
        values = {
            "name": name,
            "split": split,
            "documents": documents,
            "queries": require(queries, QUERIES, f"{label} queries"),
            "qrels": require(qrels, QRELS, f"{label} qrels"),
            "run": None if run is None else require(run, RUN, f"{label} run"),
            "triples": None if triples is None else require(triples, ID_TRIPLES, f"{label} triples"),
            "relevance_level": relevance_level,
            "reserved": reserved,
        }
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)

    @property
    def corpus(self) -> pa.Table:
        """CORPUS, all of it in memory. ``documents`` streams it, and finds single documents."""
        return self.documents.table()

    def __repr__(self) -> str:
        return (
            f"Collection({self.name!r}, split={self.split!r}, documents={self.documents.num_rows}, "
            f"queries={self.queries.num_rows}, judgements={self.qrels.num_rows})"
        )

    def _with(self, **changes: object) -> "Collection":
        values = {field: getattr(self, field) for field in self.__dataclass_fields__}
        values["corpus"] = values.pop("documents")
        return Collection(**{**values, **changes})

    def with_queries(self, query_ids: Iterable[str], split: str | None = None) -> "Collection":
        """The same corpus with only these queries, their judgements, candidates and triples, in the same order."""
        keep = pa.array(query_ids, pa.string())
        cut = {
            name: table if table is None else table.filter(pc.is_in(table["query_id"], keep))
            for name, table in (("queries", self.queries), ("qrels", self.qrels), ("run", self.run),
                                ("triples", self.triples))
        }  # fmt: skip
        return self._with(split=split or self.split, **cut)

    def in_memory(self, doc_ids: Iterable[str | None] | pa.ChunkedArray | None = None) -> "Collection":
        """The same with only these documents, read from the disk once. None: all of them."""
        return self._with(corpus=self.documents.table() if doc_ids is None else self.documents.lookup(doc_ids))

    def with_reserved(self, doc_ids: pa.Array | None) -> "Collection":
        """The same with other reserved documents."""
        return self._with(reserved=doc_ids)

    def relevant(self) -> pa.Table:
        """QRELS of the relevant documents only: judged ``relevance_level`` or above, and not reserved."""
        found = self.qrels.filter(pc.greater_equal(self.qrels["relevance"], self.relevance_level))
        return found if self.reserved is None else found.filter(pc.invert(pc.is_in(found["doc_id"], self.reserved)))

    def texts(self, doc_ids: Iterable[str | None] | pa.ChunkedArray | None = None) -> dict[str, str]:
        """doc_id -> what a model reads (see ``document_texts``), of these documents. None: of all of them."""
        corpus = self.documents.table() if doc_ids is None else self.documents.lookup(doc_ids)
        return dict(zip(corpus["doc_id"].to_pylist(), document_texts(corpus), strict=True))
