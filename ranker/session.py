"""Connect to the user's Ray cluster, or start a local one that ends with the program.

Ray itself is imported where it is used: what only prepares data starts without it.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

from ranker.config import RayConfig
from ranker.machine import available_cpus

log = logging.getLogger(__name__)

# Two workers need two places even on a machine of one core.
MINIMUM_CPUS = 2
# A machine of our own is not taken away with notice, so that Ray Train need not start a process that looks out for it.
NO_NOTICE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}

# Ray waits 30 s for its own raylet, whatever else the machine does, and then says this. What it had started by then
# ends with the program.
TOO_SLOW, ATTEMPTS = "timed out during startup", 3

_open: ContextVar[ExitStack | None] = ContextVar("open", default=None)


@contextmanager
def one_cluster() -> Iterator[None]:
    """A context whose stages share what the first of them opens with :func:`connected`; it closes with the block.

    Where no stage needs Ray, nothing starts.
    """
    if _open.get() is not None:
        yield
        return
    with ExitStack() as stack:
        before = _open.set(stack)
        try:
            yield
        finally:
            _open.reset(before)


@contextmanager
def connected(config: RayConfig) -> Iterator[None]:
    """A context in which Ray is connected.

    An open connection is used and left open. Otherwise ``config.address`` or RAY_ADDRESS (set inside a submitted
    job) is joined; without either a local cluster starts, and stops at the end of the block, or at that of the
    :func:`one_cluster` around it.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    cluster, around = _joined(address) if address else _local(config), _open.get()
    if around is not None:
        around.enter_context(cluster)
        yield
        return
    with cluster:
        yield


@contextmanager
def _joined(address: str) -> Iterator[None]:
    import ray

    log.info("joining the Ray cluster at %s", address)
    ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": worker_environment()})
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _local(config: RayConfig) -> Iterator[None]:
    import ray

    num_cpus = config.num_cpus or max(MINIMUM_CPUS, available_cpus())
    log.info("starting a local Ray cluster with %d cores", num_cpus)
    with ExitStack() as folders:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _start(num_cpus, folders)
                break
            except Exception as error:
                if attempt == ATTEMPTS or TOO_SLOW not in str(error):
                    raise
                log.warning("Ray gave up its own start after half a minute, as on a busy machine; starting it again")
        try:
            yield
        finally:
            ray.shutdown()


def _start(num_cpus: int, folders: ExitStack) -> None:
    import ray

    # A folder of our own: Ray's sockets must not meet those of another cluster of this user. Sockets allow
    # about 100 characters, so the name is short.
    folder = folders.enter_context(tempfile.TemporaryDirectory(prefix="ranker-", ignore_cleanup_errors=True))
    ray.init(
        address="local",
        num_cpus=num_cpus,
        # Left to Ray: without a dashboard, placement groups of stopped Tune trials are never given back.
        include_dashboard=None,
        log_to_driver=False,
        # Below this it tells of its token file and of the dashboard on every start.
        logging_level=logging.ERROR,
        _temp_dir=folder,
        runtime_env={"env_vars": {**worker_environment(), **NO_NOTICE}},
    )


def quiet_ray_data() -> None:
    """Ray Data's own progress off: the lines of the house say the same in documents."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it would say that they are off


def worker_environment() -> dict[str, str]:
    """What a worker process must inherit from the driver's environment."""
    names = ("HF_HUB_OFFLINE", "HF_HOME", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    passed = {name: os.environ[name] for name in names if name in os.environ}
    return {"TOKENIZERS_PARALLELISM": "false", "RAY_TRAIN_V2_ENABLED": "1", **passed}
