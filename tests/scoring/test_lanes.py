"""Batches side by side: every item once, in order, with its share of the threads."""

import gc
import os
import threading
import time

import numpy as np
import pytest
import torch

from ranker.scoring import lanes as module
from ranker.scoring.batches import share_batches
from ranker.scoring.lanes import Lanes, lane_choices, usable_threads


def test_results_keep_their_order_and_lanes_work_at_the_same_time():
    pool = Lanes(2, 4, torch_threads=False)
    meeting = threading.Barrier(2)  # two must be in it at once, or it breaks

    def work(item: int) -> int:
        meeting.wait(timeout=20)
        return item * item

    assert pool.map(work, range(6)) == [0, 1, 4, 9, 16, 25]
    assert pool.threads == 2
    pool.close()


def test_an_error_of_one_item_reaches_the_caller():
    pool = Lanes(2, 2, torch_threads=False)
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda item: 1 // item, [1, 0, 1])
    assert pool.map(lambda item: 1 // item, [1, 1]) == [1, 1]


def test_each_lane_has_its_torch_threads_and_the_caller_keeps_its_own():
    before = torch.get_num_threads()
    pool = Lanes(1, 3, torch_threads=True)
    assert pool.map(lambda _: torch.get_num_threads(), [0]) == [3]
    assert torch.get_num_threads() == before


def test_the_threads_are_those_that_were_told(monkeypatch):
    monkeypatch.setattr(module, "available_cpus", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)  # torch counts the machine's cores
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert usable_threads() == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # as Ray says it to an actor
    assert usable_threads() == 2


def test_the_choices_are_one_lane_one_a_core_and_the_powers_of_two_between():
    assert [lane_choices(threads) for threads in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 6], [1, 2, 4, 8]]


def test_lanes_are_pinned_only_where_they_fill_the_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(module, "available_cpus", lambda: 4)
    assert module._shares(2, 2) == [{0, 1}, {2, 3}]
    assert module._shares(1, 4) == [] and module._shares(2, 1) == []
    monkeypatch.setattr(module, "available_cpus", lambda: 2)  # a container's quota: any core will do
    assert module._shares(2, 1) == []


def test_no_lane_stands_idle_while_there_are_pairs():
    plan = share_batches([10] * 8, batch_tokens=1000, lanes=2)
    assert [len(rows) for rows in plan] == [4, 4]
    assert sorted(np.concatenate(plan).tolist()) == list(range(8))
    assert [len(rows) for rows in share_batches([10] * 8, batch_tokens=20, lanes=2)] == [2, 2, 2, 2]
    assert share_batches([], 100, 2) == []


def test_threads_end_with_the_scorer_that_had_them():
    before = set(threading.enumerate())  # no count: threads of earlier tests may end meanwhile
    pool = Lanes(2, 2, torch_threads=True)
    lanes = set(threading.enumerate()) - before
    assert [thread.name.startswith("lane") for thread in lanes] == [True, True]
    del pool
    gc.collect()
    deadline = time.monotonic() + 20
    while any(thread.is_alive() for thread in lanes) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(thread.is_alive() for thread in lanes)
