"""Retrieve and rerank in one process, without Ray: what a notebook reaches for."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ranker.config import ScoringConfig
from ranker.rag import saved
from ranker.rag.documents import Document, Given, as_documents
from ranker.rag.library import Library, texts_of
from ranker.rag.passages import Cutter
from ranker.rag.reranker import Reranker
from ranker.rag.variants import AsyncQuestions
from ranker.retrieval.encoder import Encoder
from ranker.retrieval.stores import STORES, FaissStore, Store, StoreError

log = logging.getLogger(__name__)

# Documents encoded between two progress lines.
CHUNK = 2048
# Vectors that come with the first call of an index that has to be trained.
TRAINING = 50_000
SECRETS = ("api_key",)
_AS_SAVED = "as saved"


class RAGPipeline(AsyncQuestions):
    """Finds the documents that answer a question: a bi-encoder retrieves, a cross-encoder reranks.

    Args:
        retriever_model: bi-encoder folder, hub id or the bundled one's name.
        reranker_model: cross-encoder folder (torch, LoRA or exported), or the address of a service (``http://...``).
            None: only retrieve.
        top_k_retrieval: documents that the reranker reads. top_k_rerank: documents that come back.
        store: name in STORES. store_options: keyword arguments of the store, such as ``factory="HNSW32"`` or ``path=``.
        hybrid: retrieve with BM25 as well, and fuse both lists by their ranks.
        chunk_tokens: longest passage of a document, in the retriever's tokens. None: what the retriever reads; 0:
            documents stay whole and are read as far as that. chunk_overlap: tokens that two passages share.
        score_threshold: results with a lower score are left out. None: all come back.
        diversity: 0 to 1: how much a result that is like a better one gives way to others (maximal marginal relevance).
        raw_scores: give the reranker's logits; otherwise their sigmoid, 0 to 1.
        max_length: longest retriever input in tokens; None: as the model says.
        scoring: engine, precision and length of the reranker; its interpolation is not used here.
        device: as torch names it. None: the first GPU, else the CPU.
        reranker_api_key: of a served reranker. None: the environment's RANKER_API_KEY.

    Raises:
        UnknownNameError: an unknown store, before any model is loaded.
        StoreError: options that the store does not take, a database that is not there, a feature that it lacks.
        ModelNotFoundError, NotARerankerError: see ``load_scorer``. RemoteRerankerError: a service that is not there.
        ValueError: a ``top_k`` below 1, a diversity outside 0 to 1, chunks that the retriever cannot read.
    """

    def __init__(
        self,
        retriever_model: str,
        reranker_model: str | Path | None = None,
        top_k_retrieval: int = 50,
        top_k_rerank: int = 5,
        *,
        store: str = "faiss",
        store_options: Mapping[str, Any] | None = None,
        hybrid: bool = False,
        chunk_tokens: int | None = None,
        chunk_overlap: int = 32,
        score_threshold: float | None = None,
        diversity: float = 0.0,
        raw_scores: bool = False,
        max_length: int | None = 256,
        scoring: ScoringConfig | None = None,
        device: str | None = None,
        reranker_api_key: str | None = None,
    ) -> None:
        if min(top_k_retrieval, top_k_rerank) < 1:
            raise ValueError(f"top_k_retrieval {top_k_retrieval} and top_k_rerank {top_k_rerank} must be at least 1")
        if not 0 <= diversity <= 1:
            raise ValueError(f"diversity {diversity} must be between 0 and 1")
        self._make_store = STORES[store]
        self.store_name, self.store_options = store, dict(store_options or {})
        self.retriever_model = str(retriever_model)
        self.reranker_model = None if reranker_model is None else str(reranker_model)
        self.raw_scores, self.max_length = raw_scores, max_length
        self.chunking = {"chunk_tokens": chunk_tokens, "chunk_overlap": chunk_overlap}
        encoder = Encoder(self.retriever_model, max_length=max_length, device=device)
        self._cutter = Cutter(encoder.tokenizer, encoder.max_length, chunk_tokens, chunk_overlap)
        self._dimension = encoder.dimension
        library = Library(self._empty_store())
        if diversity and "vectors" in library.store.lacks:
            raise StoreError(f"store {store!r} with {self.store_options}: diversity reads vectors back, and it cannot")
        most = getattr(library.store, "most_neighbours", None)
        if most is not None and top_k_retrieval > most:
            raise StoreError(f"store {store!r} finds at most {most} neighbours; top_k_retrieval is {top_k_retrieval}")
        reranker = None
        if reranker_model is not None:
            options = {"scoring": scoring, "device": device, "api_key": reranker_api_key, "raw_scores": raw_scores}
            reranker = Reranker(reranker_model, **options)  # type: ignore[arg-type]
        super().__init__(
            encoder, reranker, library, top_k_retrieval, top_k_rerank, hybrid, score_threshold, float(diversity)
        )
        self._written: Store | None = None  # the store that what was saved last stands on

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
        library, before = Library(self._empty_store()), self._library
        try:
            self._encode_into(library, accepted)
        except BaseException:
            library.store.drop()
            raise
        with self._lock:
            self._library = library
        if before.store is not self._written:
            before.store.drop()
        return len(self)

    def add(self, documents: Given) -> int:
        """Index these documents as well, in the place of those with the same id; the number there are now.

        Passages that are there already are not encoded again.
        """
        accepted = as_documents(documents, taken=self._library.documents)
        self._may_remove(document.doc_id for document in accepted)
        self._encode_into(self._library, accepted)
        return len(self)

    async def aindex_documents(self, documents: Given) -> int:
        """See ``index_documents``; in a thread."""
        return await asyncio.to_thread(self.index_documents, documents)

    async def aadd(self, documents: Given) -> int:
        """See ``add``; in a thread."""
        return await asyncio.to_thread(self.add, documents)

    def update(self, documents: Given) -> int:
        """Put these documents in the place of those with the same ids; the number there are.

        Raises:
            KeyError: naming the ids that are not there; nothing is changed then.
        """
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
        self._refuse_unknown(gone)
        self._may_remove(gone)
        with self._lock:
            self._library.remove(gone)
        return len(self)

    def save(self, folder: str | Path) -> Path:
        """Save index, documents and the models' names; a folder that is there keeps its old index until the end."""
        path = Path(folder).expanduser().absolute()
        with self._lock:
            saved.save(path, self._head(), self._library)
            store, before = self._library.store, self._written
            self._library.sweep()
        if before is not None and before is not store:
            before.drop()
        self._written = store if store.shared else None
        return path

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        retriever_model: str | None = None,
        reranker_model: str | Path | None = _AS_SAVED,
        **settings: Any,
    ) -> "RAGPipeline":
        """The pipeline that :meth:`save` wrote.

        Args:
            folder: that was saved into.
            retriever_model: None: the saved one; another name is accepted for the same files only.
            reranker_model: another one than the saved; None: only retrieve.
            **settings: further arguments of the constructor, instead of the saved ones; of ``store_options`` what is
                not saved, such as a key.

        Raises:
            SavedIndexError: where nothing whole is saved.
            IndexMismatchError: an index made with another model or dimension, naming both.
        """
        path = Path(folder).expanduser().absolute()
        head = saved.read_head(path)
        retriever = retriever_model or head.retriever_model
        saved.check_model(head, retriever)
        reranker = head.reranker_model if reranker_model == _AS_SAVED else reranker_model
        secrets = dict(settings.pop("store_options", None) or {})
        known = {**head.settings, "max_length": head.max_length, **settings}
        options = {**known.pop("store_options", {}), **secrets}
        pipeline = cls(retriever, reranker, store=head.store, store_options=options, **known)
        saved.check_dimension(head, retriever, pipeline.encoder.dimension)
        unsaved = pipeline._library.store
        pipeline._library = saved.load(path, head, secrets)
        unsaved.drop()
        pipeline._written = pipeline._library.store if pipeline._library.store.shared else None
        return pipeline

    def _head(self) -> saved.Head:
        return saved.Head(
            self.retriever_model,
            self.reranker_model,
            saved.model_fingerprint(self.retriever_model),
            self.encoder.dimension,
            self.max_length,
            self.store_name,
            len(self),
            len(self._library.passages),
            {
                **self.chunking,
                "top_k_retrieval": self.top_k_retrieval,
                "top_k_rerank": self.top_k_rerank,
                "hybrid": self.hybrid,
                "score_threshold": self.score_threshold,
                "diversity": self.diversity,
                "raw_scores": self.raw_scores,
                "store_options": {name: value for name, value in self.store_options.items() if name not in SECRETS},
            },
        )

    def _empty_store(self) -> Store:
        try:
            return self._make_store(self._dimension, **self.store_options)
        except TypeError as error:
            raise StoreError(f"store {self.store_name!r} does not take {self.store_options}: {error}") from error

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
