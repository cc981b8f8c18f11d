"""Retrieve and rerank in one process, without Ray: what a notebook reaches for."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ranker.config import ScoringConfig
from ranker.rag import saved
from ranker.rag.documents import Document, as_documents
from ranker.retrieval.encoder import Encoder
from ranker.retrieval.stores import STORES, Store
from ranker.schemas import Collection, RankedDocument
from ranker.scoring.pairs import without_surrogates
from ranker.scoring.scorer import Scorer, load_scorer, probabilities

log = logging.getLogger(__name__)

# Documents encoded between two progress lines.
CHUNK = 2048
_AS_SAVED = "as saved"


class RAGPipeline:
    """Finds the documents that answer a question: a bi-encoder retrieves, a cross-encoder reranks.

    Args:
        retriever_model: bi-encoder folder, hub id or the bundled one's name.
        reranker_model: cross-encoder folder (torch, LoRA or exported). None: only retrieve.
        top_k_retrieval: documents that the reranker reads. top_k_rerank: documents that come back.
        store: name in STORES. store_options: keyword arguments of the store, such as ``factory="HNSW32"``.
        raw_scores: give the reranker's logits; otherwise their sigmoid, 0 to 1.
        max_length: longest retriever input in tokens; None: as the model says.
        scoring: engine, precision and length of the reranker; its interpolation is not used here.
        device: as torch names it. None: the first GPU, else the CPU.

    Raises:
        UnknownNameError: an unknown store, before any model is loaded.
        ModelNotFoundError, NotARerankerError: see ``load_scorer``.
        ValueError: a ``top_k`` below 1.
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
        raw_scores: bool = False,
        max_length: int | None = 256,
        scoring: ScoringConfig | None = None,
        device: str | None = None,
    ) -> None:
        if min(top_k_retrieval, top_k_rerank) < 1:
            raise ValueError(f"top_k_retrieval {top_k_retrieval} and top_k_rerank {top_k_rerank} must be at least 1")
        self._make_store = STORES[store]
        self.store_name, self.store_options = store, dict(store_options or {})
        self.retriever_model = str(retriever_model)
        self.reranker_model = None if reranker_model is None else str(reranker_model)
        self.top_k_retrieval, self.top_k_rerank = top_k_retrieval, top_k_rerank
        self.raw_scores, self.max_length = raw_scores, max_length
        self.encoder = Encoder(self.retriever_model, max_length=max_length, device=device)
        self.scorer: Scorer | None = None
        if self.reranker_model is not None:
            self.scorer = load_scorer(self.reranker_model, scoring or ScoringConfig(), device)
        self._documents: dict[str, Document] = {}
        self._store: Store = self._empty_store()

    def __len__(self) -> int:
        return len(self._documents)

    def index_documents(self, documents: Collection | Iterable[str | Mapping[str, Any]]) -> int:
        """Index these documents instead of those that are there; the number of them.

        Args:
            documents: strings, dicts with ``text`` and perhaps ``id``, ``title`` and ``metadata``, or a Collection.

        Raises:
            DocumentError: all malformed documents at once; the old index stays.
        """
        accepted = as_documents(documents)
        store, known = self._empty_store(), dict[str, Document]()
        self._encode_into(store, known, accepted)
        self._store, self._documents = store, known
        return len(self)

    def add(self, documents: Collection | Iterable[str | Mapping[str, Any]]) -> int:
        """Index these documents as well, in the place of those with the same id; the number there are now."""
        accepted = as_documents(documents, taken=self._documents)
        self._encode_into(self._store, self._documents, accepted)
        return len(self)

    def delete(self, doc_ids: Iterable[str]) -> int:
        """Forget these documents; the number that remain.

        Raises:
            KeyError: naming the ids that are not there; nothing is forgotten then.
        """
        gone = list(dict.fromkeys(doc_ids))
        unknown = [doc_id for doc_id in gone if doc_id not in self._documents]
        if unknown:
            raise KeyError(f"{len(unknown)} ids are not in the index: {', '.join(map(repr, unknown[:5]))}")
        self._store.remove(gone)
        for doc_id in gone:
            del self._documents[doc_id]
        return len(self)

    def retrieve(self, query: str, top_k: int | None = None) -> list[RankedDocument]:
        """The nearest documents by cosine, best first; ``top_k`` None means ``top_k_retrieval``.

        Raises:
            ValueError: where no documents were indexed.
        """
        if not self._documents:
            raise ValueError("no documents are indexed; call index_documents first")
        if not isinstance(query, str):
            raise TypeError(f"query is {query!r:.60}; ask with one string")
        vector = self.encoder.encode_queries([without_surrogates(query)])
        (ids,), (scores,) = self._store.search(vector, min(top_k or self.top_k_retrieval, len(self)))
        found = zip(ids, scores.tolist(), strict=False)
        return [self._ranked(doc_id, score, rank) for rank, (doc_id, score) in enumerate(found, start=1)]

    def rerank(
        self, query: str, documents: Sequence[RankedDocument | str], top_k: int | None = None
    ) -> list[RankedDocument]:
        """These documents as the reranker orders them; ties keep the order given.

        Args:
            query: what is asked.
            documents: from :meth:`retrieve`, or any strings, which then are numbered.
            top_k: how many come back. None: ``top_k_rerank``.

        Raises:
            ValueError: on a pipeline without a reranker.
        """
        if self.scorer is None:
            raise ValueError("this pipeline has no reranker; construct it with reranker_model=")
        listed = [
            RankedDocument(str(place), document, 0.0, place + 1) if isinstance(document, str) else document
            for place, document in enumerate(documents)
        ]
        ranked = self.scorer.rank(query, [self._reading(document) for document in listed], top_k or self.top_k_rerank)
        logits = [logit for _, logit in ranked]
        scores = logits if self.raw_scores else probabilities(logits).tolist()
        return [
            replace(listed[place], score=score, rank=rank)
            for rank, ((place, _), score) in enumerate(zip(ranked, scores, strict=True), start=1)
        ]

    def retrieve_and_rerank(self, query: str) -> list[RankedDocument]:
        """The ``top_k_rerank`` best of ``top_k_retrieval`` retrieved documents, with ranks and scores of both stages.

        Without a reranker: the retriever's best.
        """
        if self.scorer is None:
            return self.retrieve(query, self.top_k_rerank)
        return self.rerank(query, self.retrieve(query))

    def save(self, folder: str | Path) -> Path:
        """Save index, documents and the models' names; a folder that is there keeps its old index until the end."""
        path = Path(folder).expanduser().absolute()
        head = saved.Head(
            self.retriever_model,
            self.reranker_model,
            saved.model_fingerprint(self.retriever_model),
            self.encoder.dimension,
            self.max_length,
            self.store_name,
            len(self),
        )
        saved.save(path, head, self._store, list(self._documents.values()))
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
            **settings: further arguments of the constructor.

        Raises:
            SavedIndexError: where nothing whole is saved.
            IndexMismatchError: an index made with another model or dimension, naming both.
        """
        path = Path(folder).expanduser().absolute()
        head = saved.read_head(path)
        retriever = retriever_model or head.retriever_model
        saved.check_model(head, retriever)
        reranker = head.reranker_model if reranker_model == _AS_SAVED else reranker_model
        pipeline = cls(retriever, reranker, store=head.store, **{"max_length": head.max_length, **settings})
        saved.check_dimension(head, retriever, pipeline.encoder.dimension)
        store, documents = saved.load(path, head)
        pipeline._store = store
        pipeline._documents = {document.doc_id: document for document in documents}
        return pipeline

    def _empty_store(self) -> Store:
        return self._make_store(self.encoder.dimension, **self.store_options)

    def _encode_into(self, store: Store, known: dict[str, Document], documents: Sequence[Document]) -> None:
        for start in range(0, len(documents), CHUNK):
            chunk = documents[start : start + CHUNK]
            vectors = self.encoder.encode_documents([document.reading for document in chunk])
            store.add([document.doc_id for document in chunk], vectors)
            # With each chunk, so that an error in a later one leaves store and documents in step.
            known.update({document.doc_id: document for document in chunk})
            log.info("indexed %d of %d documents", start + len(chunk), len(documents))

    def _ranked(self, doc_id: str, score: float, rank: int) -> RankedDocument:
        document = self._documents[doc_id]
        return RankedDocument(doc_id, document.text, score, rank, score, rank, document.described())

    def _reading(self, document: RankedDocument) -> str:
        known = self._documents.get(document.doc_id)
        return known.reading if known is not None and known.text == document.text else document.text
