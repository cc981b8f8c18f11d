"""The same questions for callers with an event loop: each runs in a thread and leaves the loop free."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from ranker.rag.results import Results


class Asked(Protocol):
    """What the variants stand on: :class:`ranker.rag.pipeline.RAGPipeline`."""

    def index_documents(self, documents: Any) -> int: ...  # noqa: D102

    def add(self, documents: Any) -> int: ...  # noqa: D102

    def retrieve(self, query: str, top_k: int | None = None, **options: Any) -> Results: ...  # noqa: D102

    def rerank(self, query: str, documents: Any, top_k: int | None = None, **options: Any) -> Results: ...  # noqa: D102

    def retrieve_and_rerank(self, query: str, **options: Any) -> Results: ...  # noqa: D102

    def retrieve_and_rerank_many(self, queries: Sequence[str], **options: Any) -> list[Results]: ...  # noqa: D102


class AsyncVariants:
    """``await`` instead of a call; arguments and results are those of the methods without the ``a``."""

    async def aindex_documents(self: Asked, documents: Any) -> int:
        """See ``index_documents``."""
        return await asyncio.to_thread(self.index_documents, documents)

    async def aadd(self: Asked, documents: Any) -> int:
        """See ``add``."""
        return await asyncio.to_thread(self.add, documents)

    async def aretrieve(self: Asked, query: str, top_k: int | None = None, **options: Any) -> Results:
        """See ``retrieve``."""
        return await asyncio.to_thread(self.retrieve, query, top_k, **options)

    async def arerank(self: Asked, query: str, documents: Any, top_k: int | None = None, **options: Any) -> Results:
        """See ``rerank``."""
        return await asyncio.to_thread(self.rerank, query, documents, top_k, **options)

    async def aretrieve_and_rerank(self: Asked, query: str, **options: Any) -> Results:
        """See ``retrieve_and_rerank``."""
        return await asyncio.to_thread(self.retrieve_and_rerank, query, **options)

    async def aretrieve_and_rerank_many(self: Asked, queries: Sequence[str], **options: Any) -> list[Results]:
        """See ``retrieve_and_rerank_many``."""
        return await asyncio.to_thread(self.retrieve_and_rerank_many, queries, **options)
