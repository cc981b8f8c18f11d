"""The fair queue, with an engine that serves one token a tick."""

import random

import pytest

from ranker.serving.pace import Pace
from ranker.serving.packing import FairQueue


def lengths(batch) -> list[int]:
    return [packed.cost for packed in batch]


def drain(queue: FairQueue, names: dict, budget: int) -> dict[str, int]:
    """Tokens served when each request ended."""
    served, ends = 0, {}
    while batch := queue.take(budget, 256):
        served += sum(lengths(batch))
        for entry in {packed.entry for packed in batch}:
            if not entry.waiting:
                ends[names[entry]] = served
    return ends


def test_a_batch_holds_similar_lengths_of_several_requests():
    queue = FairQueue()
    queue.add(["a", "b", "c"], [100, 60, 10])
    queue.add(["d", "e", "f"], [200, 90, 9])
    # 100 leads; 90 and 60 pad less than half; 200 would stretch all, 10 and 9 would be padding mostly.
    batch = queue.take(1000, 256)
    assert [(packed.item, packed.cost) for packed in batch] == [("a", 100), ("b", 60), ("e", 90)]
    assert lengths(queue.take(1000, 256)) == [10, 9]  # the front request always comes forward
    assert lengths(queue.take(1000, 256)) == [200]
    assert (len(queue), queue.tokens) == (0, 0)


def test_where_padding_is_free_everything_shorter_comes_along():
    queue = FairQueue(fill=0.0)
    queue.add("abc", [100, 60, 10])
    assert lengths(queue.take(1000, 256)) == [100, 60, 10]


@pytest.mark.parametrize(("budget", "taken"), [(400, 4), (399, 3), (99, 1), (10_000, 6)])
def test_the_budget_counts_padding(budget: int, taken: int):
    queue = FairQueue()
    queue.add(range(6), [100, 90, 90, 90, 90, 90])
    assert len(queue.take(budget, 256)) == taken
    assert len(FairQueue().take(budget, 256)) == 0


def test_items_that_cost_nothing_are_served():
    queue = FairQueue()
    queue.add(["", "a"], [0, 1])
    assert sorted(lengths(queue.take(10, 256))) == [1, 1]
    assert queue.tokens == 0


def test_a_short_request_overtakes_a_long_one_and_equal_ones_take_turns():
    queue = FairQueue()
    names = {queue.add(range(1000), [1] * 1000): "long", queue.add(range(5), [1] * 5): "short"}
    assert drain(queue, names, 10) == {"short": 10, "long": 1005}
    names = {queue.add(range(10), [1] * 10): name for name in ("first", "second", "third")}
    assert drain(queue, names, 10) == {"first": 10, "second": 20, "third": 30}


def test_an_endless_stream_of_short_requests_does_not_starve_a_long_one():
    queue = FairQueue()
    long = queue.add(range(1000), [1] * 1000)
    served = 0
    while long.waiting:
        queue.add(range(10), [1] * 10)  # as much as the engine can do
        served += len(queue.take(10, 256))
        assert served < 5000, "starved"
    # Short ones come first until their virtual end is behind the long one's: 1,980 tokens, of which it gets none.
    assert served <= 1980 + 1000


def test_no_request_ends_later_than_it_would_under_equal_shares():
    random.seed(0)
    for _ in range(20):
        sizes = [random.choice([1, 5, 50, 500]) for _ in range(8)]
        queue = FairQueue()
        names = {queue.add(range(size), [1] * size): str(number) for number, size in enumerate(sizes)}
        for number, end in drain(queue, names, 8).items():
            mine = sizes[int(number)]
            assert end <= sum(min(size, mine) for size in sizes) + 8  # a batch is not interrupted


def test_what_is_ahead_of_a_request_is_its_share():
    queue = FairQueue()
    queue.add(range(1000), [1] * 1000)
    queue.add(range(20), [1] * 20)
    assert queue.ahead(5) == 15
    assert queue.ahead(100) == 100 + 100 + 20


def test_a_discarded_request_leaves_nothing():
    queue = FairQueue()
    gone, stays = queue.add("abc", [3, 2, 1]), queue.add("d", [9])
    queue.discard(gone)
    queue.discard(gone)
    assert (len(queue), queue.tokens) == (1, 9)
    assert [packed.entry for packed in queue.take(100, 256)] == [stays]


def simulate(pace: Pace, tokens_per_s: float, start_s: float = 0.0, num: int = 30) -> list[float]:
    """Seconds of batches as large as the budget allows."""
    times = []
    for _ in range(num):
        padded = pace.budget
        times.append(start_s + padded / tokens_per_s)
        pace.note(padded, padded, times[-1])
    return times


def test_the_budget_shrinks_on_a_slow_engine_until_a_batch_takes_what_it_should():
    pace = Pace(8192, batch_s=0.1)
    assert simulate(pace, 20_000)[-1] == pytest.approx(0.1, rel=0.02)
    assert pace.tokens_per_s == pytest.approx(20_000)
    assert pace.seconds(40_000) == pytest.approx(2.0)


def test_the_budget_stays_on_a_fast_engine_and_comes_back_when_it_recovers():
    fast = Pace(16_384, batch_s=0.1)
    simulate(fast, 1e6)
    assert fast.budget == 16_384
    slow = Pace(16_384, batch_s=0.1)
    simulate(slow, 10_000)
    simulate(slow, 1e6, num=6)
    assert slow.budget == 16_384


def test_a_batch_that_was_held_up_does_not_count_as_the_pace():
    pace = Pace(64)
    pace.note(64, 60, 3.0)
    assert pace.tokens_per_s == pytest.approx(20), "all that is known"
    for _ in range(40):
        pace.note(64, 60, 0.01)
        assert pace.tokens_per_s == pytest.approx(6000)
    pace.note(64, 60, 2.0)
    assert pace.tokens_per_s == pytest.approx(6000)


def test_batches_that_are_slow_again_and_again_count():
    pace = Pace(64)
    for number in range(64):
        pace.note(64, 60, 0.1 if number % 4 == 0 else 0.01)
    assert pace.tokens_per_s == pytest.approx(60 / ((0.1 + 3 * 0.01) / 4), rel=0.1)


def test_the_pace_follows_an_engine_that_has_become_slower():
    pace = Pace(1000)
    simulate(pace, 10_000, num=200)
    simulate(pace, 1000, num=8)
    assert pace.tokens_per_s == pytest.approx(32_000 / (24 * 0.1 + 8), rel=0.2)
    simulate(pace, 1000, num=24)
    assert pace.tokens_per_s == pytest.approx(1000)


def test_small_batches_say_nothing_of_the_pace():
    pace = Pace(16_384, batch_s=0.1)
    simulate(pace, 1e6)
    for _ in range(1000):
        pace.note(8, 8, 0.005)  # a health check
    assert pace.tokens_per_s == pytest.approx(1e6)
    assert pace.budget == 16_384


def test_a_small_batch_that_was_slow_shrinks_the_budget():
    pace = Pace(16_384, batch_s=0.1)
    pace.note(2000, 1800, 1.0)
    assert pace.budget == 1000
    pace.shrink()
    assert (pace.most, pace.budget) == (500, 500)


def test_nothing_is_known_at_the_start():
    assert Pace(100).seconds(10**9) == 0.0
