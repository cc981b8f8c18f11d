"""The same calls for callers with an event loop: each runs in a thread and leaves the loop free."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from ranker.rag.changes import Changes
from ranker.rag.documents import Given
from ranker.rag.results import Results


class AsyncCalls(Changes):
    """``await`` instead of a call; arguments and results are those of the methods without the ``a``."""

    async def aretrieve(self, query: str, top_k: int | None = None, **options: Any) -> Results:
        """See ``retrieve``."""
        return await asyncio.to_thread(self.retrieve, query, top_k, **options)

    async def aretrieve_many(self, queries: Sequence[str], top_k: int | None = None, **options: Any) -> list[Results]:
        """See ``retrieve_many``."""
        return await asyncio.to_thread(self.retrieve_many, queries, top_k, **options)

    async def arerank(self, query: str, documents: Any, top_k: int | None = None, **options: Any) -> Results:
        """See ``rerank``."""
        return await asyncio.to_thread(self.rerank, query, documents, top_k, **options)

    async def arerank_many(
        self, queries: Sequence[str], documents: Any, top_k: int | None = None, **options: Any
    ) -> list[Results]:
        """See ``rerank_many``."""
        return await asyncio.to_thread(self.rerank_many, queries, documents, top_k, **options)

    async def aretrieve_and_rerank(self, query: str, **options: Any) -> Results:
        """See ``retrieve_and_rerank``."""
        return await asyncio.to_thread(self.retrieve_and_rerank, query, **options)

    async def aretrieve_and_rerank_many(self, queries: Sequence[str], **options: Any) -> list[Results]:
        """See ``retrieve_and_rerank_many``."""
        return await asyncio.to_thread(self.retrieve_and_rerank_many, queries, **options)

    async def aindex_documents(self, documents: Given) -> int:
        """See ``index_documents``."""
        return await asyncio.to_thread(self.index_documents, documents)

    async def aadd(self, documents: Given) -> int:
        """See ``add``."""
        return await asyncio.to_thread(self.add, documents)

    async def aupdate(self, documents: Given) -> int:
        """See ``update``."""
        return await asyncio.to_thread(self.update, documents)

    async def adelete(self, doc_ids: Iterable[str]) -> int:
        """See ``delete``."""
        return await asyncio.to_thread(self.delete, doc_ids)
