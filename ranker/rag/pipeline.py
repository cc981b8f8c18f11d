"""Retrieve and rerank in one process, without Ray: what a notebook reaches for."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ranker.config import ScoringConfig
from ranker.rag import saved
from ranker.rag.library import Library
from ranker.rag.passages import Cutter
from ranker.rag.reranker import Reranker
from ranker.rag.shelf import Shelf
from ranker.rag.variants import AsyncCalls
from ranker.retrieval.encoder import Encoder
from ranker.retrieval.stores import StoreError

SECRETS = ("api_key",)
_AS_SAVED = "as saved"


class RAGPipeline(AsyncCalls):
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
        self.store_options = dict(store_options or {})
        shelf = Shelf(store, self.store_options)
        self.retriever_model = str(retriever_model)
        self.reranker_model = None if reranker_model is None else str(reranker_model)
        self.raw_scores, self.max_length = raw_scores, max_length
        self.chunking = {"chunk_tokens": chunk_tokens, "chunk_overlap": chunk_overlap}
        encoder = Encoder(self.retriever_model, max_length=max_length, device=device)
        cutter = Cutter(encoder.tokenizer, encoder.max_length, chunk_tokens, chunk_overlap)
        library = Library(shelf.empty(encoder.dimension))
        if diversity and "vectors" in library.store.lacks:
            raise StoreError(f"store {store!r} with {self.store_options}: diversity reads vectors back, and it cannot")
        most = getattr(library.store, "most_neighbours", None)
        if most is not None and top_k_retrieval > most:
            raise StoreError(f"store {store!r} finds at most {most} neighbours; top_k_retrieval is {top_k_retrieval}")
        reranker = None
        if reranker_model is not None:
            options = {"scoring": scoring, "device": device, "api_key": reranker_api_key, "raw_scores": raw_scores}
            reranker = Reranker(reranker_model, **options)  # type: ignore[arg-type]
        answering = (top_k_retrieval, top_k_rerank, hybrid, score_threshold, float(diversity))
        super().__init__(cutter, shelf, store, encoder, reranker, library, *answering)

    def save(self, folder: str | Path) -> Path:
        """Save index, documents and the models' names; a folder that is there keeps its old index until the end.

        A collection in a database belongs to one folder: a save into another one copies it.

        Raises:
            SavedIndexError: where the folder holds files that are not a saved pipeline's.
        """
        path = Path(folder).expanduser().absolute()
        with self._writing, saved.locked(path):
            self._stand_alone(path)
            generation = saved.save(path, self._head(), self._library)
            before = self._shelf.put(path, self._library.store, generation)
            with self._lock:
                self._library.sweep()
            if before is not None:
                before.drop()
        return path

    async def asave(self, folder: str | Path) -> Path:
        """See ``save``; in a thread."""
        return await asyncio.to_thread(self.save, folder)

    def _stand_alone(self, path: Path) -> None:
        """Give ``path`` a collection that no other folder stands on, and that holds every vector."""
        library, standing = self._library, self._shelf.at(path)
        if not self._shelf.is_saved(library.store):
            return
        here = standing is not None and standing.store is library.store
        if here and standing is not None and standing.generation == saved.generation(path):
            return
        # Another process has saved here, or reads and sweeps the other folder: it may have removed vectors.
        lost = library.lost()
        vectors = self._encode_documents([library.read(passage) for passage in lost])
        target = library.store if here else self._shelf.empty(self.encoder.dimension)
        try:
            if not here:
                library.copy_vectors(target, but=lost)
            target.add([passage.key for passage in lost], vectors)
        except BaseException:
            if not here:
                target.drop()
            raise
        if not here:
            with self._lock:
                library.move(target)

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
        pipeline._library, generation = saved.load(path, head, secrets)
        unsaved.drop()
        pipeline._shelf.put(path, pipeline._library.store, generation)
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
