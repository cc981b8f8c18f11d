"""A pipeline and a reranker as Haystack components: ``pip install 'ranker[haystack]'``."""

# Haystack reads the real annotations of ``run``: they are no strings here.

import asyncio
from dataclasses import replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from ranker.rag.filters import FilterError
from ranker.rag.pipeline import RAGPipeline
from ranker.rag.reranker import Reranker
from ranker.rag.results import Result

__all__ = ["RankerReranker", "RankerRetriever"]

_COMPARED = {
    "==": "$eq",
    "!=": "$ne",
    ">": "$gt",
    ">=": "$gte",
    "<": "$lt",
    "<=": "$lte",
    "in": "$in",
    "not in": "$nin",
}


@component
class RankerRetriever:
    """Retrieves and reranks with a saved :class:`RAGPipeline`.

    Args:
        index: folder that ``RAGPipeline.save`` wrote; loaded by ``warm_up``. Or a pipeline, which cannot be serialised.
        top_k: documents. None: the pipeline's. settings: further arguments of ``RAGPipeline.load``.
        whole_documents: the content is the whole document; otherwise the passage that was found.
    """

    def __init__(
        self,
        index: str | RAGPipeline,
        top_k: int | None = None,
        settings: dict[str, Any] | None = None,
        whole_documents: bool = False,
    ) -> None:
        self.index, self.top_k, self.settings, self.whole_documents = index, top_k, settings, whole_documents
        self._pipeline = index if isinstance(index, RAGPipeline) else None

    def warm_up(self) -> None:
        """Load the saved pipeline."""
        if self._pipeline is None:
            self._pipeline = RAGPipeline.load(str(self.index), **(self.settings or {}))

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int | None = None, filters: dict[str, Any] | None = None) -> dict[str, Any]:
        """``documents``: the best, with the reranker's score. ``filters``: Haystack's own, on ``meta`` fields."""
        self.warm_up()
        if self._pipeline is None:
            raise AssertionError(self.index)
        where = conditions(filters) if filters else None
        results = self._pipeline.retrieve_and_rerank(query, top_k=top_k or self.top_k, where=where)
        return {"documents": [self._document(result) for result in results]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, top_k: int | None = None, filters: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """The same; the event loop stays free."""
        return await asyncio.to_thread(self.run, query, top_k, filters)

    def _document(self, result: Result) -> Document:
        content = result.text if self.whole_documents else result.passage or result.text
        about = {"doc_id": result.doc_id, "start": result.start, "retrieval_rank": result.retrieval_rank}
        return Document(
            id=f"{result.doc_id}:{result.start}", content=content, meta={**result.metadata, **about}, score=result.score
        )

    def to_dict(self) -> dict[str, Any]:
        """As Haystack saves it.

        Raises:
            ValueError: where it was made from a pipeline in memory.
        """
        if not isinstance(self.index, str):
            raise ValueError("a pipeline in memory cannot be serialised; save it and give its folder as index")
        return default_to_dict(
            self, index=self.index, top_k=self.top_k, settings=self.settings, whole_documents=self.whole_documents
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RankerRetriever":
        """What :meth:`to_dict` gave."""
        return default_from_dict(cls, data)


@component
class RankerReranker:
    """Puts documents in a reranker's order, with its scores.

    Args:
        model: cross-encoder folder, hub id or the address of a service. top_k: documents that are kept. None: all.
        score_threshold: those below it are left out. device: as torch names it.
    """

    def __init__(
        self, model: str, top_k: int | None = 5, score_threshold: float | None = None, device: str | None = None
    ) -> None:
        self.model, self.top_k, self.score_threshold, self.device = model, top_k, score_threshold, device
        self._reranker: Reranker | None = None

    def warm_up(self) -> None:
        """Load the model."""
        if self._reranker is None:
            self._reranker = Reranker(self.model, device=self.device)

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """``documents``: the best, best first."""
        self.warm_up()
        if self._reranker is None:
            raise AssertionError(self.model)
        ranked = self._reranker.rank(query, [document.content or "" for document in documents], top_k or self.top_k)
        kept = [
            replace(documents[place], score=score)
            for place, score in ranked
            if self.score_threshold is None or score >= self.score_threshold
        ]
        return {"documents": kept}

    @component.output_types(documents=list[Document])
    async def run_async(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """The same; the event loop stays free."""
        return await asyncio.to_thread(self.run, query, documents, top_k)

    def to_dict(self) -> dict[str, Any]:
        """As Haystack saves it."""
        return default_to_dict(
            self, model=self.model, top_k=self.top_k, score_threshold=self.score_threshold, device=self.device
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RankerReranker":
        """What :meth:`to_dict` gave."""
        return default_from_dict(cls, data)


def conditions(filters: dict[str, Any]) -> dict[str, Any]:
    """Haystack's filters as the pipeline's ``where``.

    Raises:
        FilterError: on an operator that Haystack does not have.
    """
    operator = filters.get("operator")
    if "conditions" in filters:
        parts = [conditions(one) for one in filters["conditions"]]
        if operator not in ("AND", "OR", "NOT"):
            raise FilterError(f"filters: operator {operator!r} over conditions; known: AND, OR, NOT")
        return {"$not": {"$and": parts}} if operator == "NOT" else {f"${operator.lower()}": parts}
    if operator not in _COMPARED or "field" not in filters:
        raise FilterError(f"filters: {filters}; give field, operator ({', '.join(_COMPARED)}) and value")
    return {str(filters["field"]).removeprefix("meta."): {_COMPARED[str(operator)]: filters.get("value")}}
