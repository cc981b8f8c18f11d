"""Who waits where requests are taken in, refused and answered by processes that share their cores with inference."""

import os

# About a third of the share of a process that says nothing.
NICENESS = 5


def let_others_first() -> None:
    """Lower the priority of this thread and of those that it starts, once, where the system has such a thing.

    A replica that computes on all cores takes nothing from proxy and gateway then, which need little. Called where the
    replica is made, so that its event loop and what computes for it have the same priority: a thread that computes
    nicely and holds the interpreter's lock would keep the loop waiting behind everybody else.
    """
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
