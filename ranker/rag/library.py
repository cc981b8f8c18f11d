"""What is indexed: documents, their passages, and the vectors of these in a store."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.rag.documents import Document
from ranker.rag.filters import Where, predicate
from ranker.rag.fusion import fuse
from ranker.rag.passages import Passage, reading
from ranker.rag.words import Words
from ranker.retrieval.bm25 import top_positions
from ranker.retrieval.stores import Store, Vectors

# Passages looked up for each document that is wanted, at first.
WIDER = 2
# Passages that share a word with the question, looked at for each document that is wanted, at first.
HITS = 4
# A filter that lets more than this share of the documents through is applied to what was found.
MOST = 0.5
# Vectors copied at once, and seconds between two looks at a database that settles.
COPIED, LOOK_S = 1000, 0.25


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
        self._words = Words()
        self._revision = 0  # of the passages

    def restore(self, documents: Iterable[Document], passages: Iterable[Passage]) -> None:
        """Take what was saved; the store holds the vectors."""
        self.documents = {document.doc_id: document for document in documents}
        self.passages = {passage.key: passage for passage in passages}
        keys: dict[str, list[str]] = {}
        for passage in self.passages.values():
            keys.setdefault(passage.doc_id, []).append(passage.key)
        self._keys = {doc_id: tuple(found) for doc_id, found in keys.items()}
        self._revision += 1

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
        self._revision += bool(fresh)
        self._forget(before)

    def remove(self, doc_ids: Sequence[str]) -> None:
        """Forget documents that are there."""
        keys = [key for doc_id in doc_ids for key in self._keys[doc_id]]
        self._forget(keys)
        for doc_id in doc_ids:
            del self.documents[doc_id], self._keys[doc_id]

    def _forget(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        if self.store.shared:
            self._gone.update(keys)
        else:
            self.store.remove(keys)
        for key in keys:
            del self.passages[key]
        self._words.forget(keys)
        self._revision += 1

    def sweep(self) -> None:
        """Remove what is gone from a store that lies in a database; what was saved before cannot be loaded any more."""
        if self._gone:
            self.store.remove(sorted(self._gone))
            self._gone.clear()

    def settle(self) -> None:
        """Wait until a database shows what was written, no longer than it may take."""
        end = time.monotonic() + self.store.settles_s
        while len(self.store) < len(self.passages) and time.monotonic() < end:
            time.sleep(LOOK_S)

    def complete(self) -> bool:
        """Whether the store holds a vector of every passage.

        What else a database holds is of a process that has not saved it, or was killed before: it is never found, and
        goes with the next :meth:`sweep`.
        """
        self.settle()
        if len(self.store) == len(self.passages) or not self.store.shared:
            return len(self.store) == len(self.passages)
        known = self.store.known()
        self._gone |= known - self.passages.keys()
        return self.passages.keys() <= known

    def lost(self) -> list[Passage]:
        """Passages whose vectors are no more in the database, where others write too."""
        self.settle()
        known = self.store.known()
        return [passage for key, passage in self.passages.items() if key not in known]

    def copy_vectors(self, store: Store, but: Collection[Passage] = ()) -> None:
        """Copy the vectors of all passages but these into another store."""
        left_out = {passage.key for passage in but}
        keys = [key for key in self.passages if key not in left_out]
        for start in range(0, len(keys), COPIED):
            some = keys[start : start + COPIED]
            store.add(some, self.store.vectors(some))

    def move(self, store: Store) -> None:
        """Stand on this store, which holds the vectors of all passages and no others."""
        self.store, self._gone = store, set()

    def allowed(self, where: Where | None) -> list[str] | None:
        """Ids of the documents whose metadata fits; None: all."""
        if where is None:
            return None
        fits = predicate(where)
        found = [doc_id for doc_id, document in self.documents.items() if fits(document.described())]
        return found if len(found) < len(self.documents) else None

    def dense(self, vectors: Vectors, k: int, allowed: Sequence[str] | None) -> list[list[Found]]:
        """The nearest ``k`` documents of each query vector, by their best passage."""
        if allowed is None:
            return self._nearest(vectors, min(k, len(self.documents)))
        wanted = min(k, len(allowed))
        if len(allowed) > MOST * len(self.documents):
            # A database would be sent all these keys with every question.
            found = self._nearest(vectors, wanted, fits=frozenset(allowed))
            if all(len(one) == wanted for one in found):
                return found
        return self._nearest(vectors, wanted, [key for doc_id in allowed for key in self._keys[doc_id]])

    def _nearest(
        self, vectors: Vectors, wanted: int, keys: list[str] | None = None, fits: Collection[str] | None = None
    ) -> list[list[Found]]:
        total = len(self.passages) + len(self._gone) if keys is None else len(keys)
        whole = len(self.passages) == len(self.documents) and not self._gone and fits is None
        wide = wanted if whole else min(total, WIDER * wanted)
        while True:
            ids, scores = self.store.search(vectors, wide, keys)
            found = [self._best(row, values, fits) for row, values in zip(ids, scores.tolist(), strict=True)]
            # A list that is shorter than was asked for holds all that the store finds.
            short = any(len(one) < wanted and len(row) >= wide for one, row in zip(found, ids, strict=True))
            if short and wide >= total and keys is None and self.store.shared:
                total = len(self.store)  # another process may have added since
            if not short or wide >= total:
                return [one[:wanted] for one in found]
            wide = min(total, 2 * wide)

    def _best(self, keys: Sequence[str], scores: Sequence[float], fits: Collection[str] | None = None) -> list[Found]:
        best: dict[str, Found] = {}
        for key, score in zip(keys, scores, strict=False):
            passage = self.passages.get(key)
            if passage is None or passage.doc_id in best or (fits is not None and passage.doc_id not in fits):
                continue
            best[passage.doc_id] = Found(passage, score)
        return list(best.values())

    def index_words(self, lock: AbstractContextManager[Any]) -> None:
        """Bring BM25 up to the passages that are there now; ``lock`` is held only to look at them."""
        with lock:
            revision = self._revision
            if self._words.revision == revision:
                return
            order = list(self.passages)
            numbers = self._words.known(order)
            texts = {
                key: self.read(self.passages[key]) for key, some in zip(order, numbers, strict=True) if some is None
            }
        self._words.build(revision, order, numbers, texts)

    def lexical(self, query: str, k: int, allowed: Sequence[str] | None) -> list[Found]:
        """The best ``k`` documents by BM25 of their best passage, as :meth:`index_words` found them last."""
        if self._words.revision < 0:
            self.index_words(nullcontext())
        order, scores = self._words.scores(query)
        if allowed is not None:
            scores = np.where(self._mask(order, frozenset(allowed)), scores, np.float32(0))
        wide = HITS * k
        while True:
            rows = top_positions(scores, wide)
            found = self._best([order[row] for row in rows.tolist()], scores[rows].tolist())
            if len(found) >= k or len(rows) < wide:
                return found[:k]
            wide *= 2

    def _mask(self, order: Sequence[str], allowed: Collection[str]) -> NDArray[np.bool_]:
        passages = (self.passages.get(key) for key in order)
        return np.array([one is not None and one.doc_id in allowed for one in passages], dtype=bool)

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
