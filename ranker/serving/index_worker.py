"""One open index at work: searches in batches, changes one after another, both off the event loop."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from ranker.serving.batching import GreedyBatcher
from ranker.serving.calls import Neighbour
from ranker.serving.errors import LOGGER, EngineError, WriteError, log_failure
from ranker.serving.journal import JournalError
from ranker.serving.live_index import Document, LiveIndex

log = logging.getLogger(LOGGER)
T = TypeVar("T")
# Queries that are encoded together.
QUERIES = 32


@dataclass(frozen=True)
class Changed:
    """What a change came to: ids that were new, that took another's place, that were there to be deleted; the rest."""

    added: int
    replaced: int
    deleted: int
    documents: int


class IndexWorker:
    """Searches and changes an index.

    Args:
        index: what is searched.
    """

    def __init__(self, index: LiveIndex) -> None:
        self._index = index
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="documents")
        self._batcher: GreedyBatcher[tuple[str, int], list[Neighbour]] = GreedyBatcher(
            self._search, lambda item: 1, budget=QUERIES, max_items=QUERIES
        )

    async def retrieve(self, query: str, num_candidates: int) -> list[Neighbour]:
        """The nearest documents with their texts, best first.

        Raises:
            EngineError: where the encoder or the index fails; the log has the reason.
        """
        try:
            [found] = await self._batcher.submit([(query, num_candidates)])
        except Exception as error:
            _log("retrieval", error)
            raise EngineError(f"retrieval failed with {type(error).__name__}") from None
        return found

    async def change(self, put: Sequence[Document], delete: Sequence[str]) -> Changed:
        """Add, replace and delete: on disk and found by every search from now on, when this returns.

        Raises:
            WriteError: where it could not be written; the log has the reason.
        """
        try:
            return await self._in_turn(lambda: self._change(put, delete))
        except Exception as error:
            _log("writing documents", error)
            raise WriteError("the documents could not be written; send them again later") from None

    async def get(self, doc_id: str) -> Document | None:
        """The document with this id as it stands now."""
        return await asyncio.to_thread(self._index.get, doc_id)

    async def describe(self) -> dict[str, Any]:
        """Documents that can be found, and how many of them were added while serving."""
        return await asyncio.to_thread(self._index.counts)

    async def check(self) -> None:
        """Search once."""
        await self._batcher.submit([("healthy", 1)])

    def close(self) -> None:
        """Stop the threads after what they are doing."""
        self._batcher.close()
        self._writer.shutdown(wait=False)

    def _search(self, items: list[tuple[str, int]]) -> list[list[Neighbour]]:
        return self._index.search([query for query, _ in items], [depth for _, depth in items])

    def _change(self, put: Sequence[Document], delete: Sequence[str]) -> Changed:
        last = list({document.doc_id: document for document in put}.values())
        there = sum(self._index.known([document.doc_id for document in last]))
        if last:
            self._index.put(last)
        gone = self._index.delete(list(dict.fromkeys(delete))) if delete else []
        return Changed(len(last) - there, there, len(gone), self._index.counts()["documents"])

    async def _in_turn(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)


def _log(where: str, error: Exception) -> None:
    if isinstance(error, JournalError):  # speaks of files only
        log.error("%s: %s", where, error)
    log_failure(where, "", error)
