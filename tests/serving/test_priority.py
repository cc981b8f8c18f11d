"""A replica that computes lets those go first who take requests in."""

import os
import threading

import pytest

from ranker.serving.priority import NICENESS, let_others_first


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="this system has no priorities of this kind")
def test_a_thread_and_those_that_it_starts_become_nicer_once():
    seen = []

    def compute() -> None:
        start = os.getpriority(os.PRIO_PROCESS, 0)
        for _ in range(2):
            let_others_first()
        seen.append((max(start, NICENESS), os.getpriority(os.PRIO_PROCESS, 0)))
        inner = threading.Thread(target=lambda: seen.append((seen[0][0], os.getpriority(os.PRIO_PROCESS, 0))))
        inner.start()
        inner.join()

    outer = threading.Thread(target=compute)  # it ends with its priority
    outer.start()
    outer.join()
    assert len(seen) == 2 and all(expected == found for expected, found in seen)
