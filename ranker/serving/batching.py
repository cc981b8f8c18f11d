"""A greedy batcher: whenever the engine is free it takes what is queued, so an idle request never waits.

Pure asyncio, without a timer and without Ray. Against a batcher that waits for company it gives the same
throughput under load at a fraction of the idle latency. What goes into a batch is decided in ``packing``.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ranker.serving.pace import Pace
from ranker.serving.packing import Entry, FairQueue, Packed

# Of the time that a client waits, what the queue may be expected to take: shorter ones overtake one that was let in.
SHARE_OF_DEADLINE = 0.6
Item = TypeVar("Item")
Result = TypeVar("Result")


class QueueFullError(RuntimeError):
    """What is queued would keep a new request waiting beyond its deadline.

    Args:
        wait_s: seconds until it would be answered. for_all: whether other requests as long would be refused as well,
            whatever they ask for.
    """

    # Both arguments reach `args`, so that the error survives the way through Ray.
    def __init__(self, wait_s: float, for_all: bool = True) -> None:
        super().__init__(wait_s, for_all)
        self.wait_s, self.for_all = wait_s, for_all

    def __str__(self) -> str:
        return f"the queue holds {self.wait_s:.1f} s of work"


@dataclass(frozen=True)
class Timed(Generic[Result]):
    """Results in the order of the items, and where the time went, in seconds.

    Args:
        inferred: the batches in which the request took part. queued: all the rest.
    """

    results: list[Result]
    queued: float
    inferred: float


@dataclass(frozen=True)
class BatchRecord:
    """One batch that ran: its items, their tokens, those with padding, seconds."""

    items: int
    tokens: int
    padded: int
    seconds: float


@dataclass(eq=False)
class _Request(Generic[Item, Result]):
    """The place where one caller's results go."""

    entry: Entry[Item]
    size: int
    future: "asyncio.Future[list[Result]]"
    results: dict[int, Result] = field(default_factory=dict)
    inferred: float = 0.0
    ended: float = 0.0

    def note(self, begin: float, end: float) -> None:
        """A batch with some of its items ran; seconds in which two ran side by side count once."""
        self.inferred += max(0.0, end - max(begin, self.ended))
        self.ended = end


class GreedyBatcher(Generic[Item, Result]):
    """Answers ``await submit(items)`` with one result an item, in order.

    A request larger than the budget is split; short requests overtake long ones without starving them; a request whose
    caller is gone drops out of the queue; when a batch fails, its requests are run one by one, so that only the guilty
    one gets the error.

    Args:
        run: the engine; called in a worker thread with a batch, returns one result an item.
        cost: tokens of an item.
        budget: largest batch in tokens, padding to its longest item included. An item above it goes alone.
        lanes: batches that run side by side, each taken when its lane is free: lanes that had to wait for each other
            would stand idle whenever one is held up. Where several are free, they share what is queued.
        max_items: largest batch in items.
        batch_s: seconds that a batch should take; where the engine is slower the budget shrinks, since whatever comes
            next waits for the running batch. None: the budget stays.
        fill: see :class:`~ranker.serving.packing.FairQueue`.
        observe: told of every batch.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        cost: Callable[[Item], int],
        budget: int,
        max_items: int = 256,
        *,
        lanes: int = 1,
        batch_s: float | None = None,
        fill: float = 0.5,
        observe: Callable[[BatchRecord], None] | None = None,
    ) -> None:
        if budget < 1 or max_items < 1:
            raise ValueError(f"budget {budget} and max_items {max_items} must be at least 1")
        self._run, self._cost, self._max_items, self._observe = run, cost, max_items, observe
        self._pace = Pace(budget, batch_s, lanes)
        self._queue: FairQueue[Item] = FairQueue(fill)
        self._requests: dict[Entry[Item], _Request[Item, Result]] = {}
        self._running = 0
        self._busy = 0
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="engine")
        self._lanes: list[asyncio.Task[None] | None] = [None] * lanes

    @property
    def pending_tokens(self) -> int:
        """Cost of everything that is queued or running; what autoscaling follows."""
        return self._queue.tokens + self._running

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second of full batches; None before the first."""
        return self._pace.tokens_per_s

    @property
    def depth(self) -> int:
        """Requests that wait for a result."""
        return len(self._requests)

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """One result an item, in the order of the items.

        Raises:
            Whatever the engine raises on these items alone.
        """
        return (await self.submit_timed(items)).results

    def admit(self, cost: int, within_s: float | None, arriving: Sequence[int] = ()) -> None:
        """Let a request of this cost in, or not. ``arriving`` are costs of others that were let in and come soon.

        Raises:
            QueueFullError: where the queue and the engine's pace say that it would take over ``within_s``. One that
                finds nothing queued is always let in, and so is everything until the pace is known.
        """
        ahead = self._queue.ahead(cost) + self._running + sum(min(other, cost) for other in arriving)
        wait = self._pace.seconds(ahead)
        if within_s is not None and (self._requests or arriving) and wait > within_s:
            raise QueueFullError(wait)

    async def submit_timed(self, items: Sequence[Item]) -> Timed[Result]:
        """As :meth:`submit`, with times."""
        if not items:
            return Timed([], 0.0, 0.0)
        costs = [self._cost(item) for item in items]
        begin = time.perf_counter()
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        request = _Request(self._queue.add(items, costs), len(items), future)
        self._requests[request.entry] = request
        for place, lane in enumerate(self._lanes):
            if lane is None or lane.done():
                self._lanes[place] = asyncio.create_task(self._serve())
        try:
            results = await future
        finally:  # answered, failed, or the caller is gone
            self._forget(request)
        return Timed(results, max(0.0, time.perf_counter() - begin - request.inferred), request.inferred)

    def close(self) -> None:
        """Stop the worker threads after what is running."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _serve(self) -> None:
        try:
            while batch := self._queue.take(self._share(), self._max_items):
                self._busy += 1
                try:
                    await self._answer(batch)
                finally:
                    self._busy -= 1
        except BaseException as error:
            # Not a failure of the engine, which is handled below: nobody may wait for a loop that has ended.
            for request in list(self._requests.values()):
                self._fail(request, RuntimeError(f"the batcher stopped: {type(error).__name__}"))
            raise

    def _share(self) -> int:
        """Padded tokens of the next batch: what is queued, shared between the lanes that are free."""
        free = len(self._lanes) - self._busy
        return min(self._pace.budget, -(-self._queue.tokens // free)) if free > 1 else self._pace.budget

    async def _answer(self, batch: list[Packed[Item]]) -> None:
        batch = [packed for packed in batch if packed.entry in self._requests]
        if not batch:
            return
        try:
            results, begin, end = await self._call(batch)
        except Exception as error:
            await self._answer_apart(batch, error)
            return
        for entry in {packed.entry for packed in batch} & self._requests.keys():
            self._requests[entry].note(begin, end)
        for packed, result in zip(batch, results, strict=True):
            self._deliver(packed, result)

    async def _answer_apart(self, batch: list[Packed[Item]], error: Exception) -> None:
        """A batch failed: its requests one by one; what was too large for the memory, in halves."""
        entries = list(dict.fromkeys(packed.entry for packed in batch))
        if len(entries) > 1:
            for entry in entries:
                await self._answer([packed for packed in batch if packed.entry is entry])
        elif len(batch) > 1 and _out_of_memory(error):
            self._pace.shrink()
            middle = len(batch) // 2
            await self._answer(batch[:middle])
            await self._answer(batch[middle:])
        elif entries[0] in self._requests:
            self._fail(self._requests[entries[0]], error)

    async def _call(self, batch: list[Packed[Item]]) -> tuple[Sequence[Result], float, float]:
        """Results, when they were asked for and when they came."""
        tokens = sum(packed.cost for packed in batch)
        self._running += tokens
        begin = time.perf_counter()
        try:
            items = [packed.item for packed in batch]
            results = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, items)
        finally:
            self._running -= tokens
        end = time.perf_counter()
        if len(results) != len(batch):
            raise RuntimeError(f"the engine returned {len(results)} results for {len(batch)} items")
        record = BatchRecord(len(batch), tokens, len(batch) * max(packed.cost for packed in batch), end - begin)
        self._pace.note(record.padded, record.tokens, record.seconds)
        if self._observe is not None:
            self._observe(record)
        return results, begin, end

    def _deliver(self, packed: Packed[Item], result: Result) -> None:
        request = self._requests.get(packed.entry)
        if request is None:
            return
        request.results[packed.place] = result
        if len(request.results) == request.size and not request.future.done():
            request.future.set_result([request.results[place] for place in range(request.size)])

    def _fail(self, request: _Request[Item, Result], error: Exception) -> None:
        if not request.future.done():
            request.future.set_exception(error)
        self._forget(request)

    def _forget(self, request: _Request[Item, Result]) -> None:
        self._queue.discard(request.entry)
        self._requests.pop(request.entry, None)


def _out_of_memory(error: Exception) -> bool:
    # torch.OutOfMemoryError is no MemoryError, and this module knows no torch.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
