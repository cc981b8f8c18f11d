"""Search an index folder on Ray: every shard on its own, then one exact merge."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from ranker.config import IndexConfig
from ranker.retrieval.embeddings import as_column, as_matrix
from ranker.retrieval.shards import (
    IndexInfo,
    Keys,
    Vectors,
    merge_shards,
    name_keys,
    search_shard,
    search_vectors,
)
from ranker.schemas import QUERIES, RUN, require
from ranker.session import quiet_ray_data

__all__ = ["encode_queries", "merge_shards", "search_index", "search_keys", "search_vectors"]

log = logging.getLogger(__name__)

# Queries searched at once, and shards whose lists wait to be merged: both bound the memory of a search.
QUERY_BLOCK = 4096
# So many are encoded sooner than actors start.
QUERIES_IN_PLACE = 20_000
SHARDS_AT_ONCE = 16


def search_index(folder: Path, query_table: pa.Table, k: int, *, batch_size: int = 64) -> pa.Table:
    """The nearest ``k`` documents of every query as RUN, ranks from 1; the same for any number of shards.

    Queries are encoded in this process as ``index.json`` says. Several shards are searched in parallel on Ray when it
    is connected; one shard, or an unconnected process, searches in place.

    Raises:
        ranker.manifest.StageError: where the index is not finished. SchemaError: on another table.
    """
    query_ids = require(query_table, QUERIES, "queries")["query_id"].to_pylist()
    vectors = encode_queries(folder, query_table, batch_size=batch_size)
    info = IndexInfo.read(folder)
    log.info("searching %d documents in %d shards for %d queries", info.num_documents, len(info.shards), len(vectors))
    tables = [RUN.empty_table()]
    for start in range(0, len(vectors), QUERY_BLOCK):
        keys, scores = search_keys(folder, vectors[start : start + QUERY_BLOCK], k)
        ids = name_keys(folder, info, keys)
        tables.append(_as_run(query_ids[start : start + QUERY_BLOCK], ids, scores.tolist()))
    return pa.concat_tables(tables)


def encode_queries(
    folder: Path, query_table: pa.Table, *, batch_size: int = 64, actors: IndexConfig | None = None
) -> Vectors:
    """Vectors (q, d) of QUERIES, made as the index was.

    Args:
        actors: how many and how large, where there are many queries and Ray is connected. None: this process.
    """
    queries, info = require(query_table, QUERIES, "queries"), IndexInfo.read(folder)
    if actors is None or not ray.is_initialized() or queries.num_rows <= QUERIES_IN_PLACE:
        return EncodeQueries(info, batch_size).encode(queries["text"].to_pylist())
    log.info("encoding %d queries", queries.num_rows)
    return _encode_on_actors(queries["text"], info, batch_size, actors)


class EncodeQueries:
    """A Ray Data actor: texts of queries become their vectors."""

    def __init__(self, info: IndexInfo, batch_size: int, cpus: float | None = None) -> None:
        from ranker.retrieval.encoder import Encoder

        threads = None if cpus is None else max(1, round(cpus))
        self._encoder = Encoder(info.model, info.max_length, info.precision, batch_size=batch_size, threads=threads)

    def encode(self, texts: list[str]) -> Vectors:
        """Vectors (q, d)."""
        return self._encoder.encode_queries(texts)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode a block; rows stay in order."""
        return pa.table({"row": batch["row"], "vector": as_column(self.encode(batch["text"].to_pylist()))})


def _encode_on_actors(texts: pa.ChunkedArray, info: IndexInfo, batch_size: int, actors: IndexConfig) -> Vectors:
    import ray.data

    quiet_ray_data()
    table = pa.table({"row": np.arange(len(texts)), "text": texts})
    blocks = [table.slice(start, QUERY_BLOCK) for start in range(0, len(texts), QUERY_BLOCK)]
    stream = ray.data.from_arrow(blocks).map_batches(
        EncodeQueries,
        fn_constructor_args=(info, batch_size, actors.cpus_per_worker),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(actors.num_workers, len(blocks))),
        num_cpus=actors.cpus_per_worker,
        num_gpus=actors.gpus_per_worker or None,
    )
    vectors = np.empty((len(texts), info.dimension), dtype=np.float32)
    for batch in stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        found = pa.table(batch)
        vectors[np.asarray(found["row"])] = as_matrix(found["vector"])
    return vectors


def search_keys(folder: Path, vectors: Vectors, k: int) -> tuple[Keys, Vectors]:
    """Positions in the corpus and scores (q, min(k, documents)) of the nearest documents, best first.

    -1 and -inf where an approximate index finds fewer. A task that is lost with its node runs again.
    """
    info = IndexInfo.read(folder)
    k = min(k, info.num_documents)
    if len(info.shards) == 1 or not ray.is_initialized():
        return search_vectors(folder, vectors, k)
    best: tuple[Keys, Vectors] | None = None
    for found in _found_by_shards(folder, info, vectors, k):
        lists = [best, *found] if best else found
        best = merge_shards([keys for keys, _ in lists], [scores for _, scores in lists], k)
    if best is None:
        raise AssertionError(info)
    return best


def _found_by_shards(folder: Path, info: IndexInfo, vectors: Vectors, k: int) -> Iterator[list[tuple[Keys, Vectors]]]:
    remote: Any = ray.remote(num_cpus=1)(search_shard)
    shared = ray.put(np.ascontiguousarray(vectors))
    shards = list(range(len(info.shards)))
    for start in range(0, len(shards), SHARDS_AT_ONCE):
        some = shards[start : start + SHARDS_AT_ONCE]
        yield ray.get([remote.remote(folder, info, shard, shared, k) for shard in some])


def _as_run(query_ids: list[str], ids: list[list[str]], scores: list[list[float]]) -> pa.Table:
    lengths = [len(found) for found in ids]
    columns = [
        [query_id for query_id, length in zip(query_ids, lengths, strict=True) for _ in range(length)],
        [doc_id for found in ids for doc_id in found],
        [score for found, length in zip(scores, lengths, strict=True) for score in found[:length]],
        [rank for length in lengths for rank in range(1, length + 1)],
    ]
    return pa.table(columns, schema=RUN)
