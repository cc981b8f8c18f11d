"""An index that changes while it is searched: the one on disk, and over it what the log of documents says."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranker.manifest import StageError
from ranker.retrieval.retriever import Retriever
from ranker.retrieval.shards import IndexInfo, search_store
from ranker.retrieval.stores import FaissStore
from ranker.serving.artefacts import refuse_pickles
from ranker.serving.calls import Neighbour
from ranker.serving.journal import Change, Journal
from ranker.serving.metrics import RetrieverMetrics
from ranker.serving.records import Place
from ranker.serving.texts import map_texts

# Neighbours looked up beyond those asked for, where some of them may be hidden.
SPARE = 16
# Documents encoded in one go: a search waits for no more than these.
ENCODED_TOGETHER = 16


@dataclass(frozen=True)
class Document:
    """A document as a client sends it."""

    doc_id: str
    title: str | None
    text: str

    @property
    def words(self) -> str:
        """What a model reads of it, as :func:`ranker.schemas.document_texts` says."""
        return f"{self.title or ''} {self.text}".strip()


class LiveIndex:
    """Searches, adds, replaces and deletes. Its methods may be called from several threads.

    Args:
        index, corpus: folders of the stages; the corpus is the one that the index was built from.
        journal: folder of the log of documents. metrics: where the time of searches is noted.

    Raises:
        ranker.manifest.StageError: where a folder is not finished, or the two do not belong together.
        ranker.serving.journal.JournalError: where the log cannot be read.
    """

    def __init__(self, index: Path, corpus: Path, journal: Path, metrics: RetrieverMetrics | None = None) -> None:
        refuse_pickles(IndexInfo.read(index).model)
        self._metrics = metrics or RetrieverMetrics()
        self._base = Retriever(index, safetensors_only=True)
        self._texts = map_texts(corpus, index)
        if len(self._texts) != len(self._base) or not self._starts_and_ends_alike():
            raise StageError(f"{index}: holds other documents than {corpus}; build the index again")
        self._journal = Journal(journal)
        # Of the encoder and the tokenizer, and of everything below.
        self._encoding, self._lock = threading.Lock(), threading.RLock()
        info = self._base.info
        self.encoder_name = f"{info.model} {info.dimension} {self._base.encoder.max_length}"
        self._added = FaissStore(info.dimension)
        self._hidden: set[str] = set()  # ids of the index that the log replaces or deletes
        self.refresh()

    def search(self, queries: Sequence[str], depths: Sequence[int]) -> list[list[Neighbour]]:
        """For each query its nearest documents, as many as its depth, with everything that was acknowledged."""
        with self._encoding, self._metrics.encode_seconds.time():
            vectors = self._base.encoder.encode_queries(queries)
        with self._lock, self._metrics.search_seconds.time():
            self.refresh()
            deepest = max(depths)
            kept = self._kept(vectors, deepest)
            keys, scores = search_store(self._added, vectors, deepest)
            found = []
            for row, depth in enumerate(depths):
                added = [
                    (str(self._added.ids[key]), score, -1)
                    for key, score in zip(keys[row].tolist(), scores[row].tolist(), strict=True)
                    if key >= 0
                ]
                # Sorting is stable: of equal scores those of the index stand first.
                best = sorted([*kept[row], *added], key=lambda entry: -entry[1])[:depth]
                found.append(
                    [Neighbour(doc_id, score, self._text(doc_id, position)) for doc_id, score, position in best]
                )
            return found

    def put(self, documents: Sequence[Document]) -> None:
        """Add these documents; one with an id that is there takes its place. On disk when this returns.

        Raises:
            ranker.serving.journal.JournalError: where they cannot be written; nothing has changed then.
        """
        vectors = self._encode([document.words for document in documents])
        with self._lock:
            self._journal.append(
                [document.doc_id for document in documents],
                [document.title for document in documents],
                [document.text for document in documents],
                vectors,
                self.encoder_name,
            )
            self.refresh()

    def delete(self, doc_ids: Sequence[str]) -> list[str]:
        """Forget these documents, and return those that were there. Errors as in :meth:`put`."""
        with self._lock:
            there = [doc_id for doc_id, known in zip(doc_ids, self.known(doc_ids), strict=True) if known]
            if there:
                self._journal.delete(there)
                self.refresh()
            return there

    def get(self, doc_id: str) -> Document | None:
        """The document with this id as it stands now; of one from the index, ``text`` is all that a model reads."""
        with self._lock:
            self.refresh()
            if doc_id in self._journal.places:
                place = self._journal.places[doc_id]
                return None if place is None else Document(doc_id, *self._journal.row(place))
            position = self._base.position(doc_id)
            return None if position is None else Document(doc_id, None, self._texts[position])

    def known(self, doc_ids: Sequence[str]) -> list[bool]:
        """Which of these ids are there now."""
        with self._lock:
            self.refresh()
            return [self._is_there(doc_id) for doc_id in doc_ids]

    def counts(self) -> dict[str, int]:
        """Documents that can be found, and how many of them were added while serving."""
        with self._lock:
            self.refresh()
            kept = len(self._base) - len(self._hidden)
            return {"documents": kept + len(self._added), "added": len(self._added)}

    def refresh(self) -> None:
        """Take over what was written to the log, by whichever replica."""
        with self._lock:
            again, changes = self._journal.refresh()
            if again:
                self._added, self._hidden = FaissStore(self._base.info.dimension), set()
            try:
                for change in changes:
                    self._apply(change)
            except BaseException:  # what was not applied must come again
                self._journal.read_again()
                raise

    def _apply(self, change: Change) -> None:
        self._hidden.update(doc_id for doc_id in change.doc_ids if self._base.position(doc_id) is not None)
        if change.vectors is None:
            self._added.remove(change.doc_ids)
            return
        last = {doc_id: row for row, doc_id in enumerate(change.doc_ids)}  # one id twice: the later counts
        rows = list(last.values())
        if change.encoder == self.encoder_name:
            vectors = change.vectors[rows]
        else:  # written for another index
            places = [Place(change.place.start, change.place.length, row) for row in rows]
            vectors = self._encode([Document("", *self._journal.row(place)).words for place in places])
        self._added.add(list(last), vectors)

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        found = np.empty((len(texts), self._base.info.dimension), dtype=np.float32)
        for start in range(0, len(texts), ENCODED_TOGETHER):
            some = texts[start : start + ENCODED_TOGETHER]
            with self._encoding:
                found[start : start + len(some)] = self._base.encoder.encode_documents(some)
        return found

    def _kept(self, vectors: NDArray[np.float32], k: int) -> list[list[tuple[str, float, int]]]:
        """(doc_id, score, position) of the index's own documents that nothing hides, ``k`` a query where there are."""
        hidden = self._hidden
        depth = min(k + min(SPARE, len(hidden)), len(self._base))
        while True:
            keys, scores = self._base.nearest(vectors, depth)
            kept = [
                [
                    (self._base.ids[key], score, key)
                    for key, score in zip(row, values, strict=True)
                    if key >= 0 and self._base.ids[key] not in hidden
                ][:k]
                for row, values in zip(keys.tolist(), scores.tolist(), strict=True)
            ]
            if depth >= min(k + len(hidden), len(self._base)) or all(len(row) >= k for row in kept):
                return kept
            depth = min(2 * depth, k + len(hidden), len(self._base))

    def _text(self, doc_id: str, position: int) -> str:
        if position >= 0:
            return self._texts[position]
        place = self._journal.places[doc_id]
        if place is None:
            raise KeyError("a deleted document was found")
        return Document(doc_id, *self._journal.row(place)).words

    def _is_there(self, doc_id: str) -> bool:
        if doc_id in self._journal.places:
            return self._journal.places[doc_id] is not None
        return self._base.position(doc_id) is not None

    def _starts_and_ends_alike(self) -> bool:
        ids = self._base.ids
        ends = {0, len(ids) // 2, len(ids) - 1} if len(ids) else set()
        return all(self._texts.doc_id(position) == ids[position] for position in ends)
