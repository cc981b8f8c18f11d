"""Retrieve and rerank in one process."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.rag.pipeline import RAGPipeline

__all__ = ["RAGPipeline"]


def __getattr__(name: str) -> Any:
    if name == "RAGPipeline":
        from ranker.rag.pipeline import RAGPipeline

        return RAGPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
