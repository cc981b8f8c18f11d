"""Stage `index`: one vector index a shard of the embeddings, which the stage `embed` makes before it.

Another kind of index, or other shards, are built from the same embeddings: nothing is encoded again.
"""

import logging
import os
from pathlib import Path
from typing import Any

import ray

from ranker.config import Experiment, IndexConfig
from ranker.manifest import Done, read_manifest, run_stage, write_json
from ranker.retrieval.embed import DECIDES, embed
from ranker.retrieval.embeddings import Embeddings
from ranker.retrieval.shards import INDEX_FILE, shard_folder
from ranker.retrieval.stores import STORES, FaissStore, StoreError
from ranker.session import connected

log = logging.getLogger(__name__)

# Vectors are only copied into it: not worth a cluster.
PLAIN = "Flat"


def build_index(config: Experiment) -> Done:
    """Encode the corpus of stage `data` where that is not done yet, and build one vector index a shard.

    Raises:
        ranker.manifest.StageError: where `data` has not finished.
        ranker.registry.UnknownNameError, ranker.retrieval.stores.StoreError: on a store or factory that cannot be.
    """
    index = config.index
    if STORES[index.store] is not FaissStore:  # said before hours of encoding, as is an unknown name
        raise StoreError(
            f"index.store {index.store!r} is not searched by shards; use 'faiss' here, and the others in RAGPipeline"
        )
    embedded = embed(config)
    identity = {name: value for name, value in index.identity().items() if name not in DECIDES}
    inputs = {"data": read_manifest(config.folder("data")).key, "embeddings": embedded.manifest.key}

    def make(work: Path) -> dict[str, Any]:
        embeddings = Embeddings.read(embedded.folder)
        shards = shard_sizes(embeddings.num_rows, index.shard_size)
        _build_shards(work, embeddings, shards, config)
        about = _describe(work, embeddings, shards, index, config.folder("index"))
        return {
            "documents": embeddings.num_rows,
            "shards": len(shards),
            "dimension": about["dimension"],
            "encoded": 0 if embedded.skipped else embedded.outcome["encoded"],
            "documents_per_second": None if embedded.skipped else embedded.outcome["documents_per_second"],
        }

    return run_stage("index", config.folder("index"), identity, inputs, make)


def shard_sizes(num_documents: int, shard_size: int) -> list[int]:
    """Documents of each shard, in corpus order: at most ``shard_size``, and alike, so that each can be trained on."""
    count = -(-num_documents // shard_size)
    return [num_documents // count + (shard < num_documents % count) for shard in range(count)]


def _build_shards(work: Path, embeddings: Embeddings, shards: list[int], config: Experiment) -> None:
    starts = [sum(shards[:shard]) for shard in range(len(shards))]
    missing = [shard for shard in range(len(shards)) if not shard_folder(work, shard).exists()]
    jobs = [(shard, starts[shard], starts[shard] + shards[shard]) for shard in missing]
    if len(jobs) < 2 or config.index.factory == PLAIN:
        for job in jobs:
            build_shard(work, embeddings.folder, config.index, *job)
        return
    with connected(config.ray):
        build: Any = ray.remote(num_cpus=config.index.cpus_per_worker)(build_shard)
        waiting = [build.remote(work, embeddings.folder, config.index, *job) for job in jobs]
        while waiting:
            done, waiting = ray.wait(waiting)
            try:
                ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None  # without the traceback of the worker
            log.info("%d of %d shards indexed", len(shards) - len(waiting), len(shards))


def build_shard(work: Path, embeddings: Path, index: IndexConfig, shard: int, start: int, stop: int) -> None:
    """Build and save one shard, whole or not at all."""
    ids, vectors = Embeddings.read(embeddings).rows(start, stop)
    store = STORES[index.store](vectors.shape[1], factory=index.factory)
    store.add(ids, vectors)
    store.save(shard_folder(work, shard))
    log.info("shard %d: %d documents indexed with %s", shard, len(ids), index.factory)


def _describe(
    work: Path, embeddings: Embeddings, shards: list[int], index: IndexConfig, folder: Path
) -> dict[str, Any]:
    about = {
        "model": embeddings.model,
        "dimension": embeddings.dimension,
        "store": index.store,
        "factory": index.factory,
        "max_length": embeddings.max_length,
        "precision": embeddings.precision,
        "shards": shards,
        # As seen from here: both may be moved together.
        "embeddings": os.path.relpath(embeddings.folder, folder),
    }
    write_json(work / INDEX_FILE, about)
    return about
