"""A greedy batcher: whenever the engine is free it takes what is queued, so an idle request never waits.

Pure asyncio, without a timer and without Ray. Against a batcher that waits for company it gives the same
throughput under load at a fraction of the idle latency.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class _Request(Generic[Item, Result]):
    """One caller's items, longest first, and the places where their results go."""

    waiting: deque[tuple[int, int, Item]]  # (cost, position, item)
    results: dict[int, Result] = field(default_factory=dict)
    size: int = 0
    future: "asyncio.Future[list[Result]] | None" = None

    @property
    def abandoned(self) -> bool:
        """Cancelled, or already answered with an error."""
        return self.future is None or self.future.done()


class GreedyBatcher(Generic[Item, Result]):
    """Answers ``await submit(items)`` with one result an item, in order.

    A request larger than the budget is split; requests take turns, item by item, so that a long one does not
    starve a short one; a request whose caller is gone drops out of the queue; when a batch fails, its requests
    are run one by one, so that only the guilty one gets the error.

    Args:
        run: the engine; called in one worker thread with a batch, returns one result an item.
        cost: tokens of an item.
        budget: largest batch in tokens, padding to its longest item included. An item above it goes alone.
        max_items: largest batch in items.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        cost: Callable[[Item], int],
        budget: int,
        max_items: int = 256,
    ) -> None:
        if budget < 1 or max_items < 1:
            raise ValueError(f"budget {budget} and max_items {max_items} must be at least 1")
        self._run, self._cost, self._budget, self._max_items = run, cost, budget, max_items
        self._queue: deque[_Request[Item, Result]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._loop: asyncio.Task[None] | None = None
        self.num_batches = 0
        self.num_items = 0

    @property
    def pending_tokens(self) -> int:
        """Cost of everything that is queued; what autoscaling may follow."""
        return sum(cost for request in self._queue if not request.abandoned for cost, _, _ in request.waiting)

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """One result an item, in the order of the items.

        Raises:
            Whatever the engine raises on these items alone.
        """
        if not items:
            return []
        costed = [(self._cost(item), position, item) for position, item in enumerate(items)]
        waiting = deque(sorted(costed, key=lambda entry: (-entry[0], entry[1])))
        request: _Request[Item, Result] = _Request(waiting, size=len(items))
        request.future = asyncio.get_running_loop().create_future()
        self._queue.append(request)
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._serve())
        return await request.future

    def close(self) -> None:
        """Stop the worker thread after the running batch."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _serve(self) -> None:
        while batch := self._take():
            await self._answer(batch)

    def _take(self) -> list[tuple[_Request[Item, Result], int, Item]]:
        """The next batch: one item from each request in turn, until the padded batch would exceed the budget."""
        batch: list[tuple[_Request[Item, Result], int, Item]] = []
        longest = 0
        while self._queue and len(batch) < self._max_items:
            request = self._queue[0]
            if request.abandoned or not request.waiting:
                self._queue.popleft()
                continue
            padded = max(longest, request.waiting[0][0])
            if batch and padded * (len(batch) + 1) > self._budget:
                break
            longest = padded
            _, position, item = request.waiting.popleft()
            batch.append((request, position, item))
            self._queue.rotate(-1)
        return batch

    async def _answer(self, batch: list[tuple[_Request[Item, Result], int, Item]]) -> None:
        try:
            results = await self._call([item for _, _, item in batch])
        except Exception as error:
            requests = list({id(request): request for request, _, _ in batch}.values())
            if len(requests) == 1:
                _fail(requests[0], error)
                return
            for request in requests:
                await self._answer([entry for entry in batch if entry[0] is request and not request.abandoned])
            return
        for (request, position, _), result in zip(batch, results, strict=True):
            request.results[position] = result
            if len(request.results) == request.size and not request.abandoned and request.future is not None:
                request.future.set_result([request.results[place] for place in range(request.size)])

    async def _call(self, items: list[Item]) -> Sequence[Result]:
        if not items:
            return []
        results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, items)
        self.num_batches += 1
        self.num_items += len(items)
        if len(results) != len(items):
            raise RuntimeError(f"the engine returned {len(results)} results for {len(items)} items")
        return results


def _fail(request: _Request[Item, Result], error: Exception) -> None:
    if request.future is not None and not request.future.done():
        request.future.set_exception(error)
