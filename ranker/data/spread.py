"""The same function on many items: in this process where that is quick, on Ray Data where it is not."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ranker.config import RayConfig
from ranker.data.errors import DataError
from ranker.schemas import Corpus, StoredCorpus

if TYPE_CHECKING:
    import ray.data

log = logging.getLogger(__name__)

Item = TypeVar("Item")

# Below these, reading is done before workers are there: a local cluster takes some ten seconds to start, the workers
# of one that runs two.
WORTH_STARTING_BYTES = 2 * 2**30
WORTH_JOINING_BYTES = 128 * 2**20
SAY_EVERY = 5.0


def spread(
    function: Callable[[Item], object],
    items: Sequence[Item],
    num_bytes: int,
    what: str,
    config: RayConfig | None = None,
) -> None:
    """Call ``function(item)`` for every item, each on a core of the cluster when there is much to do.

    Args:
        function: pickles, and leaves what it makes in files that every node sees.
        num_bytes: about how much all items read. what: for progress lines.
        config: of the cluster that is joined or started where none is connected. None: the default one.

    Raises:
        DataError: as ``function`` raises it, or where a node does not see a file.
    """
    config = config or RayConfig()
    on_ray = len(items) > 1 and worth_ray(num_bytes, config)
    finished = _on_ray(function, items, config) if on_ray else _in_place(function, items)
    start = said = time.monotonic()
    for count, _ in enumerate(finished, 1):
        now = time.monotonic()
        if now - said > SAY_EVERY:
            said = now
            left = (now - start) / count * (len(items) - count)
            log.info("%s: %d of %d, about %.0f s left", what, count, len(items), left)


def ray_dataset(corpus: Corpus) -> "ray.data.Dataset":
    """The documents as a Ray Data stream of CORPUS, for map_batches of your own; a part of the disk is a block.

    Ray must be connected, or starts by itself.
    """
    import ray.data

    from ranker.session import quiet_ray_data

    quiet_ray_data()
    if isinstance(corpus, StoredCorpus):
        return ray.data.read_parquet([str(part) for part in corpus.parts])
    return ray.data.from_arrow([corpus.table()])


def worth_ray(num_bytes: int, config: RayConfig) -> bool:
    """Whether so much is read faster by workers, started or there already, than by this process."""
    if num_bytes < WORTH_JOINING_BYTES:
        return False
    if num_bytes >= WORTH_STARTING_BYTES or config.address or os.environ.get("RAY_ADDRESS"):
        return True
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _in_place(function: Callable[[Item], object], items: Sequence[Item]) -> Iterator[None]:
    for item in items:
        function(item)
        yield


def _on_ray(function: Callable[[Any], object], items: Sequence[Any], config: RayConfig) -> Iterator[None]:
    import ray.data

    from ranker.session import connected, quiet_ray_data

    def work(row: dict[str, Any]) -> dict[str, Any]:
        try:
            function(items[row["item"]])
        except (DataError, OSError) as error:
            return {"error": str(error)}
        return {"error": ""}

    with connected(config):
        quiet_ray_data()
        rows = [{"item": number} for number in range(len(items))]
        for row in ray.data.from_items(rows, override_num_blocks=len(items)).map(work, num_cpus=1).iter_rows():
            if row["error"]:
                raise DataError(row["error"])
            yield
