"""A pipeline and a reranker as LangChain's retriever and document compressor: ``pip install 'ranker[langchain]'``."""

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
    Callbacks,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from ranker.rag.pipeline import RAGPipeline
from ranker.rag.reranker import Reranker
from ranker.rag.results import Result, Results

__all__ = ["RankerCompressor", "RankerRetriever"]


class RankerRetriever(BaseRetriever):
    """Retrieves and reranks with a :class:`RAGPipeline`.

    The content of a document is the passage that was found; its metadata hold the document's own, and ``doc_id``,
    ``start``, ``relevance_score``, ``retrieval_score`` and ``retrieval_rank``.

    Args:
        pipeline: indexed. top_k: documents. None: the pipeline's. where: a filter, as the pipeline takes it.
        whole_documents: the content is the whole document instead.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    pipeline: RAGPipeline
    top_k: int | None = None
    where: Any = None
    whole_documents: bool = False

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **asked: Any
    ) -> list[Document]:
        return self._documents(self.pipeline.retrieve_and_rerank(query, **self._options(asked)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **asked: Any
    ) -> list[Document]:
        return self._documents(await self.pipeline.aretrieve_and_rerank(query, **self._options(asked)))

    def _options(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"top_k": self.top_k, "where": self.where, **asked}

    def _documents(self, results: Results) -> list[Document]:
        return [self._document(result) for result in results]

    def _document(self, result: Result) -> Document:
        content = result.text if self.whole_documents else result.passage or result.text
        about = {
            "doc_id": result.doc_id, "start": result.start, "relevance_score": result.score,
            "retrieval_score": result.retrieval_score, "retrieval_rank": result.retrieval_rank,
        }  # fmt: skip
        return Document(page_content=content, id=result.doc_id, metadata={**result.metadata, **about})


class RankerCompressor(BaseDocumentCompressor):
    """Puts retrieved documents in a reranker's order; ``relevance_score`` is added to their metadata.

    Args:
        reranker: a :class:`Reranker`: of a model folder, or of a service's address.
        top_n: documents that are kept. None: all. score_threshold: those below it are left out.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reranker: Reranker
    top_n: int | None = 5
    score_threshold: float | None = None

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents, best first."""
        ranked = self.reranker.rank(query, [document.page_content for document in documents], self.top_n)
        return [
            documents[place].model_copy(update={"metadata": {**documents[place].metadata, "relevance_score": score}})
            for place, score in ranked
            if self.score_threshold is None or score >= self.score_threshold
        ]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The same; the event loop stays free."""
        return await asyncio.to_thread(self.compress_documents, documents, query, callbacks)
