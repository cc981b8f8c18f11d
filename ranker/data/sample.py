"""A small data set out of a large one: some queries, every document judged for them, and others chosen by their ids."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.data.parts import hash_ids, write_table
from ranker.data.splits import Splits
from ranker.schemas import Corpus, StoredCorpus, TableCorpus


def sample_judgements(data: Splits, max_queries: int | None, seed: int) -> Splits:
    """At most ``max_queries`` judged queries a split, drawn with ``seed``, and no others. None: all.

    A split that has only triples is drawn from the queries that they ask.
    """
    if max_queries is None:
        return data
    rng = np.random.default_rng(seed)
    qrels = {split: _sample_queries(table, max_queries, rng) for split, table in data.qrels.items()}
    only = [_sample_queries(data.triples[split], max_queries, rng) for split in data.names if split not in qrels]
    columns = [table["query_id"] for table in (*qrels.values(), *only)]
    kept = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()).unique()

    def of_kept(table: pa.Table) -> pa.Table:
        return table.filter(pc.is_in(table["query_id"], kept))

    run = None if data.run is None else of_kept(data.run)
    triples = {split: of_kept(table) for split, table in data.triples.items()}
    return replace(data, queries=of_kept(data.queries), qrels=qrels, run=run, triples=triples)


def _sample_queries(asked: pa.Table, max_queries: int, rng: np.random.Generator) -> pa.Table:
    query_ids = sorted(asked["query_id"].unique().to_pylist())
    if len(query_ids) <= max_queries:
        return asked
    chosen = pa.array([query_ids[i] for i in rng.permutation(len(query_ids))[:max_queries]], pa.string())
    return asked.filter(pc.is_in(asked["query_id"], chosen))


def sample_documents(data: Splits, max_documents: int, seed: int) -> Splits:
    """At most ``max_documents``, in the source's order: those that are judged or in a triple, and others.

    The others are those whose ids have the lowest hashes, so the same ones whatever the order and number of parts.
    Judged documents are never dropped: a corpus may be larger than ``max_documents`` when they alone are more. Of the
    candidates those in the sample stay, with their ranks.
    """
    if data.corpus.num_rows <= max_documents:
        return data
    judged = _named(data)
    num_judged = 0
    lowest = np.zeros(0, dtype=np.uint64)
    for block in data.corpus.blocks(["doc_id"]):
        hashes, is_judged = _hashed(block, judged, seed)
        num_judged += int(is_judged.sum())
        lowest = np.sort(np.concatenate([lowest, hashes[~is_judged]]))[:max_documents]
    fill = max(0, max_documents - num_judged)
    limit = lowest[fill - 1] if fill else np.uint64(0)

    def keep(table: pa.Table) -> pa.Table:
        hashes, is_judged = _hashed(table, judged, seed)
        return table.filter(pa.array(is_judged | (hashes <= limit) & bool(fill)))

    if not isinstance(data.corpus, StoredCorpus):
        return _within(data, TableCorpus(keep(data.corpus.table())))
    for part in data.corpus.parts:
        _rewrite(part, keep(pq.read_table(part)))
    return _within(data, StoredCorpus(data.corpus.folder))


def _within(data: Splits, corpus: Corpus) -> Splits:
    """The data set over a small corpus, with its candidates and triples as far as the corpus holds their documents."""
    chunks = [chunk for block in corpus.blocks(["doc_id"]) for chunk in block["doc_id"].chunks]
    ids = pa.chunked_array(chunks, pa.string())
    run = None if data.run is None else data.run.filter(pc.is_in(data.run["doc_id"], ids))
    triples = {
        split: table.filter(pc.and_(pc.is_in(table["positive_id"], ids), pc.is_in(table["negative_id"], ids)))
        for split, table in data.triples.items()
    }
    return replace(data, corpus=corpus, run=run, triples=triples)


def _named(data: Splits) -> pa.Array:
    columns = [table["doc_id"] for table in data.qrels.values()]
    columns += [table[name] for table in data.triples.values() for name in ("positive_id", "negative_id")]
    chunks = [chunk for column in columns for chunk in column.chunks]
    return pa.chunked_array(chunks, pa.string()).unique()


def _hashed(table: pa.Table, judged: pa.Array, seed: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """The seeded hash of each doc_id, and whether it is judged."""
    ids = table["doc_id"].combine_chunks()
    return hash_ids(ids, f"sample {seed}"), pc.is_in(ids, judged).to_numpy(zero_copy_only=False)


def _rewrite(part: Path, table: pa.Table) -> None:
    if table.num_rows:
        write_table(table, part)
    else:
        part.unlink()
