"""What is indexed: documents, their passages, and the vectors of these in a store."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.rag.documents import Document
from ranker.rag.filters import Where, predicate
from ranker.rag.fusion import fuse
from ranker.rag.passages import Passage, reading
from ranker.retrieval.bm25 import BM25
from ranker.retrieval.stores import Store, Vectors

# Passages looked up for each document that is wanted, at first.
WIDER = 2


@dataclass(frozen=True, slots=True)
class Found:
    """A document that was found: its best passage and the score of that."""

    passage: Passage
    score: float


class Library:
    """Documents and the store that holds a vector of each of their passages.

    A store in a database keeps the vectors of removed passages until :meth:`sweep`, so that what was saved last stays
    whole; they are never found.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.documents: dict[str, Document] = {}
        self.passages: dict[str, Passage] = {}
        self._keys: dict[str, tuple[str, ...]] = {}
        self._gone: set[str] = set()
        self._bm25: BM25 | None = None
        self._order: list[str] = []

    def restore(self, documents: Iterable[Document], passages: Iterable[Passage]) -> None:
        """Take what was saved; the store holds the vectors."""
        self.documents = {document.doc_id: document for document in documents}
        self.passages = {passage.key: passage for passage in passages}
        keys: dict[str, list[str]] = {}
        for passage in self.passages.values():
            keys.setdefault(passage.doc_id, []).append(passage.key)
        self._keys = {doc_id: tuple(found) for doc_id, found in keys.items()}
        self._bm25 = None

    def unknown(self, passages: Iterable[Passage]) -> list[Passage]:
        """Those whose vectors are not there yet."""
        return [passage for passage in passages if passage.key not in self.passages]

    def put(
        self, cut: Sequence[tuple[Document, Sequence[Passage]]], fresh: Sequence[Passage], vectors: Vectors
    ) -> None:
        """File documents with their passages, ``fresh`` of which get these vectors; others with the same id go."""
        self.store.add([passage.key for passage in fresh], vectors)
        self._gone -= {passage.key for passage in fresh}
        before: list[str] = []
        for document, passages in cut:
            keys = tuple(passage.key for passage in passages)
            before += [key for key in self._keys.get(document.doc_id, ()) if key not in keys]
            self.documents[document.doc_id] = document
            self._keys[document.doc_id] = keys
            self.passages.update({passage.key: passage for passage in passages})
        self._forget(before)

    def remove(self, doc_ids: Sequence[str]) -> None:
        """Forget documents that are there."""
        keys = [key for doc_id in doc_ids for key in self._keys[doc_id]]
        self._forget(keys)
        for doc_id in doc_ids:
            del self.documents[doc_id], self._keys[doc_id]

    def _forget(self, keys: Sequence[str]) -> None:
        if self.store.shared:
            self._gone.update(keys)
        elif keys:
            self.store.remove(keys)
        for key in keys:
            del self.passages[key]
        self._bm25 = None

    def sweep(self) -> None:
        """Remove what is gone from a store that lies in a database; what was saved before cannot be loaded any more."""
        if self._gone:
            self.store.remove(sorted(self._gone))
            self._gone.clear()

    def stray(self) -> set[str]:
        """Vectors that a database holds of no passage: of a process that was killed before it saved."""
        return self.store.known() - set(self.passages)

    def allowed(self, where: Where | None) -> list[str] | None:
        """Ids of the documents whose metadata fits; None: all."""
        if where is None:
            return None
        fits = predicate(where)
        return [doc_id for doc_id, document in self.documents.items() if fits(document.described())]

    def dense(self, vectors: Vectors, k: int, allowed: Sequence[str] | None) -> list[list[Found]]:
        """The nearest ``k`` documents of each query vector, by their best passage."""
        keys = None if allowed is None else [key for doc_id in allowed for key in self._keys[doc_id]]
        total = len(self.passages) + len(self._gone) if keys is None else len(keys)
        wanted = min(k, len(self.documents) if allowed is None else len(allowed))
        whole = len(self.passages) == len(self.documents) and not self._gone
        wide = wanted if whole else min(total, WIDER * wanted)
        while True:
            ids, scores = self.store.search(vectors, wide, keys)
            found = [self._best(row, values) for row, values in zip(ids, scores.tolist(), strict=True)]
            # A list that is shorter than was asked for holds all that the store finds.
            short = any(len(one) < wanted and len(row) >= wide for one, row in zip(found, ids, strict=True))
            if not short or wide >= total:
                return [one[:wanted] for one in found]
            wide = min(total, 2 * wide)

    def _best(self, keys: Sequence[str], scores: Sequence[float]) -> list[Found]:
        best: dict[str, Found] = {}
        for key, score in zip(keys, scores, strict=False):
            passage = self.passages.get(key)
            if passage is not None and passage.doc_id not in best:
                best[passage.doc_id] = Found(passage, score)
        return list(best.values())

    def lexical(self, query: str, k: int, allowed: Sequence[str] | None) -> list[Found]:
        """The best ``k`` documents by BM25 of their best passage."""
        if self._bm25 is None:
            self._order = list(self.passages)
            self._bm25 = BM25([self.read(self.passages[key]) for key in self._order])
        mask = None if allowed is None else self._mask(set(allowed))
        rows = self._bm25.search(query, len(self._order), mask)
        return self._best([self._order[row] for row, _ in rows], [score for _, score in rows])[:k]

    def _mask(self, allowed: set[str]) -> NDArray[np.bool_]:
        return np.array([self.passages[key].doc_id in allowed for key in self._order], dtype=bool)

    def hybrid(self, query: str, dense: Sequence[Found], k: int, allowed: Sequence[str] | None) -> list[Found]:
        """The best ``k`` documents of both searches, by reciprocal rank fusion."""
        lexical = self.lexical(query, k, allowed)
        passages = {found.passage.doc_id: found.passage for found in [*lexical, *dense]}
        fused = fuse([[found.passage.doc_id for found in ranked] for ranked in (dense, lexical)])
        return [Found(passages[doc_id], score) for doc_id, score in fused[:k]]

    def read(self, passage: Passage) -> str:
        """What a model reads of it."""
        return reading(self.documents[passage.doc_id], passage)

    def key_of(self, doc_id: str, start: int) -> str | None:
        """The key of the passage of a document that starts there; None where there is none."""
        return next((key for key in self._keys.get(doc_id, ()) if self.passages[key].start == start), None)

    def missing(self, doc_ids: Iterable[str]) -> list[str]:
        """Ids that no document has."""
        return [doc_id for doc_id in doc_ids if doc_id not in self.documents]


def texts_of(cut: Sequence[tuple[Document, Sequence[Passage]]], fresh: Sequence[Passage]) -> list[str]:
    """What the retriever reads of the passages that are new."""
    documents: Mapping[str, Document] = {document.doc_id: document for document, _ in cut}
    return [reading(documents[passage.doc_id], passage) for passage in fresh]
