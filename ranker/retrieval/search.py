"""Search an index folder on Ray: every shard on its own, then one exact merge."""

import logging
from pathlib import Path

import pyarrow as pa
import ray

from ranker.retrieval.shards import IndexInfo, Vectors, merge_shards, name_found, search_shard, search_vectors
from ranker.schemas import QUERIES, RUN, require

__all__ = ["encode_queries", "merge_shards", "search_encoded", "search_index", "search_vectors"]

log = logging.getLogger(__name__)

# Queries searched at once: bounds the memory of a search, (this x k) scores a shard.
QUERY_BLOCK = 4096


def search_index(folder: Path, query_table: pa.Table, k: int, *, batch_size: int = 64) -> pa.Table:
    """The nearest ``k`` documents of every query as RUN, ranks from 1; the same for any number of shards.

    Queries are encoded in this process as ``index.json`` says. Several shards are searched in parallel on Ray when it
    is connected; one shard, or an unconnected process, searches in place.

    Raises:
        ranker.manifest.StageError: where the index is not finished. SchemaError: on another table.
    """
    return search_encoded(folder, query_table, encode_queries(folder, query_table, batch_size=batch_size), k)


def encode_queries(folder: Path, query_table: pa.Table, *, batch_size: int = 64) -> Vectors:
    """Vectors (q, d) of QUERIES, made as the index was."""
    from ranker.retrieval.encoder import Encoder

    queries, info = require(query_table, QUERIES, "queries"), IndexInfo.read(folder)
    encoder = Encoder(info.model, info.max_length, info.precision, batch_size=batch_size)
    return encoder.encode_queries(queries["text"].to_pylist())


def search_encoded(folder: Path, query_table: pa.Table, vectors: Vectors, k: int) -> pa.Table:
    """:func:`search_index` for queries whose vectors (q, d) are there already."""
    query_ids, info = require(query_table, QUERIES, "queries")["query_id"].to_pylist(), IndexInfo.read(folder)
    log.info("searching %d documents in %d shards for %d queries", sum(info.shards), len(info.shards), len(vectors))
    tables = []
    for start in range(0, max(len(vectors), 1), QUERY_BLOCK):
        ids, scores = _search_block(folder, info, vectors[start : start + QUERY_BLOCK], k)
        tables.append(_as_run(query_ids[start : start + QUERY_BLOCK], ids, scores))
    return pa.concat_tables(tables)


def _search_block(folder: Path, info: IndexInfo, vectors: Vectors, k: int) -> tuple[list[list[str]], list[list[float]]]:
    shards = range(len(info.shards))
    if len(shards) == 1 or not ray.is_initialized():
        return search_vectors(folder, vectors, k)
    remote = ray.remote(num_cpus=1)(search_shard)
    shared = ray.put(vectors)
    found = ray.get([remote.remote(folder, info.store, shard, shared, k) for shard in shards])
    return name_found(found, info, k)


def _as_run(query_ids: list[str], ids: list[list[str]], scores: list[list[float]]) -> pa.Table:
    lengths = [len(found) for found in ids]
    columns = [
        [query_id for query_id, length in zip(query_ids, lengths, strict=True) for _ in range(length)],
        [doc_id for found in ids for doc_id in found],
        [score for found in scores for score in found],
        [rank for length in lengths for rank in range(1, length + 1)],
    ]
    return pa.table(columns, schema=RUN)
