"""Retrieve and rerank in one process; adapters for LangChain, LlamaIndex and Haystack."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.rag.pipeline import RAGPipeline
    from ranker.rag.reranker import Reranker

__all__ = ["RAGPipeline", "Reranker"]

_HOMES = {"RAGPipeline": "pipeline", "Reranker": "reranker"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
