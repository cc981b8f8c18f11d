"""Which queries of a collection are measured, and the candidates that it brings itself."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ranker.manifest import StageError
from ranker.schemas import Collection

log = logging.getLogger(__name__)


def sample_queries(collection: Collection, max_queries: int | None, seed: int) -> Collection:
    """The collection with its judged queries only, or a seeded sample of them; those left out are counted and told.

    Raises:
        StageError: when no query is judged.
    """
    judged = set(collection.qrels["query_id"].to_pylist())
    query_ids = [name for name in collection.queries["query_id"].to_pylist() if name in judged]
    if not query_ids:
        raise StageError(
            f"{collection!r} has no judged queries to evaluate on; add qrels of that split, or name another one "
            "under data.test_split"
        )
    if len(query_ids) < collection.queries.num_rows:
        asked = collection.queries["query_id"].to_pylist()
        log.warning(
            "%r: %d of %d queries have no judgement and are left out, such as %r", collection,
            len(asked) - len(query_ids), len(asked), next(name for name in asked if name not in judged),
        )  # fmt: skip
    if max_queries is not None and max_queries < len(query_ids):
        # Sorted first: the sample must not depend on the order of the file.
        chosen = np.random.default_rng(seed).choice(sorted(query_ids), max_queries, replace=False)
        query_ids = chosen.tolist()
    return collection.with_queries(query_ids)


def own_candidates(collection: Collection) -> pa.Table | None:
    """RUN of the collection's own candidates that can be reranked; None where there are none for its queries."""
    if collection.run is None:
        return None
    run = known_rows(collection.run, collection)
    held, asked = len(run["query_id"].unique()), collection.queries.num_rows
    if not held:
        log.warning("%r: the run holds candidates of none of %d queries; BM25 finds them", collection, asked)
        return None
    if held < asked:
        log.warning(
            "%r: the run holds candidates of %d of %d queries; the others count as not found; candidates='bm25' or "
            "'retriever' finds some for all", collection, held, asked,
        )  # fmt: skip
    return run


def known_rows(run: pa.Table, collection: Collection) -> pa.Table:
    """RUN of the collection's queries and documents; what names other documents is left out, counted and told."""
    run = run.filter(pc.is_in(run["query_id"], collection.queries["query_id"]))
    if unknown := collection.documents.missing(run["doc_id"]):
        known = run.filter(pc.invert(pc.is_in(run["doc_id"], pa.array(unknown))))
        log.warning(
            "%r: %d of %d candidates name documents that are not in the corpus (%d of them, such as %r); they are "
            "left out", collection, run.num_rows - known.num_rows, run.num_rows, len(unknown), unknown[0],
        )  # fmt: skip
        return known
    return run


def longest_list(collection: Collection) -> int:
    """Candidates of the query that has most, 1 at least."""
    ranks = collection.run["rank"].to_pylist() if collection.run is not None else []
    return max(ranks, default=1)
