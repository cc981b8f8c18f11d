"""Batches computed side by side: several lanes of few threads each, or one lane of all.

Which is faster depends on model and machine (two lanes of one thread beat one of two by a fifth on small models),
so :mod:`ranker.scoring.trials` measures it.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ranker.machine import available_cpus

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_threads() -> int:
    """Threads for this process: the cores it may use, and no more than torch or OMP_NUM_THREADS has been told.

    A Ray actor is told so; a container's quota is told by nobody, and neither torch nor ONNX Runtime counts it.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    torch = sys.modules.get("torch")
    limits = [available_cpus(), *([int(told)] if told.isdigit() and int(told) else [])]
    return min([*limits, torch.get_num_threads()] if torch is not None else limits)


def lane_choices(threads: int) -> list[int]:
    """Numbers of lanes worth measuring: one, one a core, and the powers of two between that divide the threads."""
    return sorted({1, threads, *(2**power for power in range(1, 6) if 2**power < threads and threads % 2**power == 0)})


class Lanes:
    """Worker threads that each run the network on whole batches with their own share of the cores.

    Args:
        lanes: batches at the same time. threads: of all lanes together; each gets a whole number, 1 at least.
        torch_threads: tell torch each lane's share; ONNX Runtime's sessions are told when they are made.

    Where the lanes fill every core of the machine, each is pinned to its own.
    """

    def __init__(self, lanes: int, threads: int, torch_threads: bool) -> None:
        self.lanes = lanes
        self.threads = max(1, threads // lanes)
        # Nothing that the threads hold knows this object, so that they end when it is forgotten.
        settle = _settler(self.threads, torch_threads, _shares(lanes, self.threads))
        self._pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane", initializer=settle)
        self._start(torch_threads)

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """``function`` of each item, in order; the first error is raised when no item is running any more."""
        futures = [self._pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """End the threads after what is running."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, torch_threads: bool) -> None:
        # All threads now: torch's number of threads is set for the thread that calls, but a later thread begins
        # with the one that was set last, anywhere in the process.
        torch = sys.modules.get("torch") if torch_threads else None
        before = torch.get_num_threads() if torch is not None else 0
        barrier = threading.Barrier(self.lanes)
        self.map(lambda _: barrier.wait(timeout=60), range(self.lanes))
        if torch is not None:
            torch.set_num_threads(before)


def _settler(threads: int, torch_threads: bool, cores: list[set[int]]) -> Callable[[], None]:
    """What each lane's thread does first."""
    left, lock = iter(cores), threading.Lock()

    def settle() -> None:
        with lock:
            own = next(left, None)
        if own:
            os.sched_setaffinity(0, own)
        if torch_threads:
            import torch

            torch.get_num_threads()  # a thread's first call takes the process's number, also after one was set
            torch.set_num_threads(threads)

    return settle


def _shares(lanes: int, threads: int) -> list[set[int]]:
    """The cores of each lane; empty where they would not fill the machine, whose scheduler then knows better."""
    if lanes == 1 or not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    if not lanes * threads == len(cores) == os.cpu_count() == available_cpus():
        return []
    return [set(cores[lane * threads : (lane + 1) * threads]) for lane in range(lanes)]
