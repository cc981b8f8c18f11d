"""The same questions for callers with an event loop: each runs in a thread and leaves the loop free."""

import asyncio
from collections.abc import Sequence
from typing import Any

from ranker.rag.questions import Questions
from ranker.rag.results import Results


class AsyncQuestions(Questions):
    """``await`` instead of a call; arguments and results are those of the methods without the ``a``."""

    async def aretrieve(self, query: str, top_k: int | None = None, **options: Any) -> Results:
        """See ``retrieve``."""
        return await asyncio.to_thread(self.retrieve, query, top_k, **options)

    async def arerank(self, query: str, documents: Any, top_k: int | None = None, **options: Any) -> Results:
        """See ``rerank``."""
        return await asyncio.to_thread(self.rerank, query, documents, top_k, **options)

    async def aretrieve_and_rerank(self, query: str, **options: Any) -> Results:
        """See ``retrieve_and_rerank``."""
        return await asyncio.to_thread(self.retrieve_and_rerank, query, **options)

    async def aretrieve_and_rerank_many(self, queries: Sequence[str], **options: Any) -> list[Results]:
        """See ``retrieve_and_rerank_many``."""
        return await asyncio.to_thread(self.retrieve_and_rerank_many, queries, **options)
