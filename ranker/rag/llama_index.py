"""A pipeline and a reranker as LlamaIndex's retriever and node postprocessor: ``pip install 'ranker[llama-index]'``."""

import asyncio
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from pydantic import ConfigDict

from ranker.rag.filters import Where
from ranker.rag.pipeline import RAGPipeline
from ranker.rag.reranker import Reranker
from ranker.rag.results import Result, Results

__all__ = ["RankerPostprocessor", "RankerRetriever"]


class RankerRetriever(BaseRetriever):  # type: ignore[misc, unused-ignore]
    """Retrieves and reranks with a :class:`RAGPipeline`; a node is the passage that was found.

    Args:
        pipeline: indexed. top_k: nodes. None: the pipeline's. where: a filter, as the pipeline takes it.
        whole_documents: a node is the whole document instead.
    """

    def __init__(
        self,
        pipeline: RAGPipeline,
        top_k: int | None = None,
        where: Where | None = None,
        whole_documents: bool = False,
        **options: Any,
    ) -> None:
        self._pipeline, self._whole = pipeline, whole_documents
        self._options: dict[str, Any] = {"top_k": top_k, "where": where}
        super().__init__(**options)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._nodes(self._pipeline.retrieve_and_rerank(query_bundle.query_str, **self._options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._nodes(await self._pipeline.aretrieve_and_rerank(query_bundle.query_str, **self._options))

    def _nodes(self, results: Results) -> list[NodeWithScore]:
        return [NodeWithScore(node=self._node(result), score=result.score) for result in results]

    def _node(self, result: Result) -> TextNode:
        text = result.text if self._whole else result.passage or result.text
        about = {"doc_id": result.doc_id, "start": result.start, "retrieval_rank": result.retrieval_rank}
        hidden = list(about)  # of what a language model is shown
        return TextNode(
            id_=f"{result.doc_id}:{result.start}", text=text, metadata={**result.metadata, **about},
            excluded_llm_metadata_keys=hidden, excluded_embed_metadata_keys=hidden,
        )  # fmt: skip


class RankerPostprocessor(BaseNodePostprocessor):  # type: ignore[misc, unused-ignore]
    """Puts nodes in a reranker's order, with its scores.

    Args:
        reranker: a :class:`Reranker`: of a model folder, or of a service's address.
        top_n: nodes that are kept. None: all. score_threshold: those below it are left out.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reranker: Reranker
    top_n: int | None = 5
    score_threshold: float | None = None

    @classmethod
    def class_name(cls) -> str:
        """As LlamaIndex names it."""
        return "RankerPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("RankerPostprocessor needs the query; pass query_str= or query_bundle=")
        texts = [node.node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        return [
            NodeWithScore(node=nodes[place].node, score=score)
            for place, score in self.reranker.rank(query_bundle.query_str, texts, self.top_n)
            if self.score_threshold is None or score >= self.score_threshold
        ]

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)
