"""What changes an index: documents come, are replaced, and go; one change at a time, beside the questions."""

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from ranker.rag.documents import Document, Given, as_documents
from ranker.rag.library import Library, texts_of
from ranker.rag.passages import Cutter
from ranker.rag.questions import Questions
from ranker.rag.shelf import Shelf
from ranker.retrieval.stores import FaissStore, StoreError

log = logging.getLogger(__name__)

# Documents encoded between two progress lines.
CHUNK = 2048
# Vectors that come with the first call of an index that has to be trained.
TRAINING = 50_000


class Changes(Questions):
    """What :class:`ranker.rag.RAGPipeline` is filled with.

    Args:
        cutter: of documents into passages. shelf: where the vectors stand. store_name: for messages.
        others: arguments of :class:`Questions`.
    """

    def __init__(self, cutter: Cutter, shelf: Shelf, store_name: str, *others: Any) -> None:
        super().__init__(*others)
        self._cutter, self._shelf, self.store_name = cutter, shelf, store_name
        # Free numbers and new passages are looked up before documents are encoded, and stay such until they are filed.
        self._writing = threading.RLock()

    def __len__(self) -> int:
        return len(self._library.documents)

    def index_documents(self, documents: Given) -> int:
        """Index these documents instead of those that are there; the number of them.

        Args:
            documents: strings, dicts with ``text`` and perhaps ``id``, ``title`` and ``metadata``, a Collection, or a
                folder of text and Markdown files.

        Raises:
            DocumentError: all malformed documents at once; the old index stays.
        """
        accepted = as_documents(documents)
        with self._writing:
            library, before = Library(self._shelf.empty(self.encoder.dimension)), self._library
            try:
                self._encode_into(library, accepted)
            except BaseException:
                library.store.drop()
                raise
            with self._lock:
                self._library = library
            if not self._shelf.is_saved(before.store):
                before.store.drop()
            return len(self)

    def add(self, documents: Given) -> int:
        """Index these documents as well, in the place of those with the same id; the number there are now.

        Passages that are there already are not encoded again. Changes from several threads wait for each other.
        """
        with self._writing:
            accepted = as_documents(documents, taken=self._library.documents)
            self._may_remove(document.doc_id for document in accepted)
            self._encode_into(self._library, accepted)
            return len(self)

    def update(self, documents: Given) -> int:
        """Put these documents in the place of those with the same ids; the number there are.

        Raises:
            KeyError: naming the ids that are not there; nothing is changed then.
        """
        with self._writing:
            accepted = as_documents(documents, taken=self._library.documents)
            self._refuse_unknown([document.doc_id for document in accepted])
            return self.add([_given(document) for document in accepted])

    def delete(self, doc_ids: Iterable[str]) -> int:
        """Forget these documents; the number that remain.

        Raises:
            KeyError: naming the ids that are not there; nothing is forgotten then.
        """
        if isinstance(doc_ids, str):
            raise TypeError(f"doc_ids is the string {doc_ids!r:.60}; give a list of ids")
        gone = list(dict.fromkeys(doc_ids))
        with self._writing:
            self._refuse_unknown(gone)
            self._may_remove(gone)
            with self._lock:
                self._library.remove(gone)
            return len(self)

    def _encode_into(self, library: Library, documents: Sequence[Document]) -> None:
        done, step = 0, CHUNK
        if isinstance(library.store, FaissStore) and not library.store.is_trained:
            step = TRAINING
        while done < len(documents):
            some = documents[done : done + step]
            cut = list(zip(some, self._cutter.cut(some), strict=True))
            fresh = library.unknown(passage for _, passages in cut for passage in passages)
            vectors = self._encode_documents(texts_of(cut, fresh))
            # With each chunk, so that an error in a later one leaves store and documents in step.
            with self._lock:
                library.put(cut, fresh, vectors)
            done, step = done + len(some), CHUNK
            log.info("indexed %d of %d documents", done, len(documents))

    def _may_remove(self, doc_ids: Iterable[str]) -> None:
        if "remove" in self._library.store.lacks and any(doc_id in self._library.documents for doc_id in doc_ids):
            raise StoreError(f"store {self.store_name!r} cannot remove or replace; index the documents again")

    def _refuse_unknown(self, doc_ids: Sequence[str]) -> None:
        unknown = self._library.missing(doc_ids)
        if unknown:
            raise KeyError(f"{len(unknown)} ids are not in the index: {', '.join(map(repr, unknown[:5]))}")


def _given(document: Document) -> dict[str, Any]:
    return {
        "id": document.doc_id, "title": document.title, "text": document.text, "metadata": document.metadata,
    }  # fmt: skip
