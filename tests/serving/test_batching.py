import asyncio
import threading
import time

import pytest

from ranker.serving.batching import GreedyBatcher, QueueFullError


def batcher(run, budget=100, max_items=256) -> GreedyBatcher:
    return GreedyBatcher(run, cost=len, budget=budget, max_items=max_items)


class Engine:
    """Upper-cases its items; records every batch; can be held until the test lets it go."""

    def __init__(self, held: bool = False):
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.started = threading.Event()
        if not held:
            self.free.set()

    def __call__(self, items: list[str]) -> list[str]:
        self.batches.append(items)
        self.started.set()
        assert self.free.wait(10)
        if any(item == "bad" for item in items):
            raise ValueError("a bad item")
        return [item.upper() for item in items]


def test_results_come_back_in_the_order_given():
    async def story():
        return await batcher(Engine()).submit(["bb", "a", "cccc"])

    assert asyncio.run(story()) == ["BB", "A", "CCCC"]


def test_an_idle_request_never_waits():
    async def story():
        begin = time.perf_counter()
        await batcher(Engine()).submit(["a"])
        return time.perf_counter() - begin

    assert asyncio.run(story()) < 0.2


def test_what_queued_while_the_engine_was_busy_goes_together():
    engine = Engine(held=True)

    async def story():
        together = batcher(engine)
        first = asyncio.create_task(together.submit(["a"]))
        await asyncio.to_thread(engine.started.wait)
        others = [asyncio.create_task(together.submit([text])) for text in ("b", "c", "d")]
        await asyncio.sleep(0.05)
        engine.free.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(story()) == [["A"], ["B"], ["C"], ["D"]]
    assert engine.batches == [["a"], ["b", "c", "d"]]


def test_a_request_above_the_budget_is_split_by_padded_length():
    engine = Engine()
    texts = ["a" * 6, "b" * 5, "c" * 2, "d" * 2, "e" * 2, "f" * 40]

    async def story():
        return await batcher(engine, budget=12).submit(texts)

    assert asyncio.run(story()) == [text.upper() for text in texts]
    # The one above the budget alone; 2 x 6 = 12; then 3 x 2.
    assert [[item[0] for item in batch] for batch in engine.batches] == [["f"], ["a", "b"], ["c", "d", "e"]]


def test_free_lanes_share_a_request_and_none_waits_for_the_other():
    held, free, batches = threading.Event(), threading.Event(), []

    def engine(items):
        batches.append(items)
        if "slow" in items:
            held.set()
            assert free.wait(10)
        return [item.upper() for item in items]

    async def story():
        lanes = GreedyBatcher(engine, cost=len, budget=8, lanes=2)
        slow = asyncio.create_task(lanes.submit(["slow", "fast"]))
        await asyncio.to_thread(held.wait)
        others = [await lanes.submit([text] * 3) for text in ("aa", "bb", "cc")]
        assert not slow.done() and lanes.pending_tokens == len("slow")
        free.set()
        return await slow, others

    slow, others = asyncio.run(story())
    assert slow == ["SLOW", "FAST"] and others == [["AA"] * 3, ["BB"] * 3, ["CC"] * 3]
    assert sorted(batches[:2]) == [["fast"], ["slow"]], "each lane took a half"
    assert batches[2:] == [["aa"] * 3, ["bb"] * 3, ["cc"] * 3], "the free lane has all of it"


def test_seconds_in_which_two_lanes_ran_count_once():
    def engine(items):
        time.sleep(0.2)
        return items

    async def story():
        return await GreedyBatcher(engine, cost=len, budget=8, lanes=2).submit_timed(["a", "b"])

    timed = asyncio.run(story())
    assert 0.2 <= timed.inferred < 0.35 and timed.queued < 0.1


def test_a_long_request_does_not_starve_a_short_one():
    engine = Engine(held=True)

    async def story():
        fair = batcher(engine, budget=8, max_items=8)
        long = asyncio.create_task(fair.submit(["x"] * 800))
        await asyncio.to_thread(engine.started.wait)
        short = asyncio.create_task(fair.submit(["y"] * 4))
        await asyncio.sleep(0.05)
        engine.free.set()
        await short
        batches_until_short = len(engine.batches)
        await long
        return batches_until_short

    assert asyncio.run(story()) <= 3  # one was running, then four and four of each
    assert sum(map(len, engine.batches)) == 804


def test_one_bad_item_fails_alone():
    engine = Engine(held=True)

    async def story():
        shared = batcher(engine)
        first = asyncio.create_task(shared.submit(["a"]))
        await asyncio.to_thread(engine.started.wait)
        tasks = [asyncio.create_task(shared.submit(texts)) for texts in (["b"], ["bad", "c"], ["d"])]
        await asyncio.sleep(0.05)
        engine.free.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    good, bad, also_good = asyncio.run(story())
    assert (good, also_good) == (["B"], ["D"])
    assert isinstance(bad, ValueError)


def test_the_batcher_works_on_after_an_error():
    async def story():
        worker = batcher(Engine())
        with pytest.raises(ValueError, match="bad item"):
            await worker.submit(["bad"])
        return await worker.submit(["good"])

    assert asyncio.run(story()) == ["GOOD"]


def test_a_cancelled_request_drops_out():
    engine = Engine(held=True)

    async def story():
        worker = batcher(engine)
        first = asyncio.create_task(worker.submit(["a"]))
        await asyncio.to_thread(engine.started.wait)
        gone, stays = asyncio.create_task(worker.submit(["b" * 5])), asyncio.create_task(worker.submit(["c"]))
        await asyncio.sleep(0.05)
        assert worker.pending_tokens == 7  # one of them is running
        gone.cancel()
        await asyncio.sleep(0)
        assert worker.pending_tokens == 2
        engine.free.set()
        return await asyncio.gather(first, stays)

    assert asyncio.run(story()) == [["A"], ["C"]]
    assert engine.batches == [["a"], ["c"]]


def test_a_request_that_is_cancelled_half_way_leaves_the_queue():
    engine = Engine(held=True)

    async def story():
        worker = batcher(engine, budget=2)
        task = asyncio.create_task(worker.submit(["a"] * 100))
        await asyncio.to_thread(engine.started.wait)
        task.cancel()
        await asyncio.sleep(0)
        left = (worker.depth, worker.pending_tokens)
        engine.free.set()
        await asyncio.sleep(0.05)
        return left

    assert asyncio.run(story()) == (0, 2)  # the two that the engine was reading
    assert len(engine.batches) == 1


def test_a_request_that_fails_half_way_leaves_the_queue():
    engine = Engine()

    async def story():
        worker = batcher(engine, budget=3)
        with pytest.raises(ValueError, match="bad item"):
            await worker.submit(["bad", *["a"] * 100])
        return worker.depth, worker.pending_tokens

    assert asyncio.run(story()) == (0, 0)
    assert len(engine.batches) == 1


def test_times_are_those_of_the_batches_and_of_the_rest():
    def slow(items):
        time.sleep(0.05)
        return items

    async def story():
        worker = batcher(slow, budget=2)
        return await asyncio.gather(worker.submit_timed(["a", "b"]), worker.submit_timed(["c", "d"]))

    first, second = asyncio.run(story())
    assert (first.results, second.results) == (["a", "b"], ["c", "d"])
    assert 0.05 <= first.inferred < 0.1 and first.queued < 0.05
    assert 0.05 <= second.inferred < 0.1 and 0.05 <= second.queued < 0.15


def test_what_cannot_be_done_in_time_is_refused_at_once_and_what_can_is_not():
    def engine(items):
        time.sleep(0.01 * len(items))  # 100 tokens a second
        return items

    async def story():
        worker = batcher(engine, budget=10)
        await worker.submit(["a"] * 10)  # so that the pace is known
        long = asyncio.create_task(worker.submit(["x"] * 50))
        await asyncio.sleep(0)
        begin = time.perf_counter()
        with pytest.raises(QueueFullError) as refused:
            worker.admit(40, within_s=0.5)  # 40 of its own and 40 of the other: 0.8 s
        seconds = time.perf_counter() - begin
        worker.admit(1, within_s=0.5)
        short = await worker.submit(["z"])
        done = long.done()
        await long
        return refused.value.wait_s, seconds, short, done

    wait, seconds, short, done = asyncio.run(story())
    assert wait == pytest.approx(0.8, rel=0.3) and seconds < 0.05
    assert (short, done) == (["z"], False)


def test_a_lone_request_is_never_refused():
    async def story():
        worker = batcher(Engine())
        await worker.submit(["a" * 60])
        worker.admit(10**9, within_s=0.0)

    asyncio.run(story())


def test_what_is_too_large_for_the_memory_is_halved():
    batches = []

    def engine(items):
        batches.append(len(items))
        if len(items) > 3:
            raise MemoryError
        return items

    async def story():
        worker = batcher(engine, budget=8)
        first = await worker.submit(["a"] * 8)
        await worker.submit(["b"] * 8)
        return first

    assert asyncio.run(story()) == ["a"] * 8
    # The budget was halved twice, so the second request does not fail again.
    assert batches == [8, 4, 2, 2, 4, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1] or max(batches[7:]) <= 3


def test_every_batch_is_told():
    seen = []

    async def story():
        worker = GreedyBatcher(Engine(), cost=len, budget=100, observe=seen.append)
        await worker.submit(["aaaa", "bbb"])

    asyncio.run(story())
    assert [(record.items, record.tokens, record.padded) for record in seen] == [(2, 7, 8)]


def test_an_engine_that_loses_a_result_is_an_error_and_not_a_wrong_answer():
    with pytest.raises(RuntimeError, match="1 results for 2 items"):
        asyncio.run(batcher(lambda items: ["only one"]).submit(["a", "b"]))


def test_nothing_in_nothing_out_and_no_impossible_budget():
    assert asyncio.run(batcher(Engine()).submit([])) == []
    with pytest.raises(ValueError, match="budget 0"):
        batcher(Engine(), budget=0)
