"""Candidates that do not come from the vector index: BM25, the data set's own run, a TREC run."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.formats import read_trec_run
from ranker.manifest import StageError
from ranker.retrieval.embeddings import Embeddings, Vectors
from ranker.schemas import Collection
from ranker.training.known import positions_of
from ranker.training.negatives import Keys, Scores

log = logging.getLogger(__name__)

BM25, DATA = "bm25", "data"
# Of a longer list only so many times the candidates that count are read.
SPARE = 2


@dataclass(frozen=True)
class Sources:
    """What they found for the queries of a collection, each looked up once and not before it is asked for.

    Args:
        width: candidates of a query that count. vectors: of the queries, for the similarities.
    """

    train: Collection
    embeddings: Embeddings
    vectors: Vectors
    width: int
    _found: dict[str, tuple[Keys, Scores]] = field(default_factory=dict)

    def rows(self, name: str, rows: slice) -> tuple[Keys, Scores]:
        """Positions (q, any), -1 where there is none, and similarities of some queries, in the source's order.

        Raises:
            StageError: on a source that does not exist or does not fit the collection.
        """
        if name not in self._found:
            self._found[name] = self._look_up(name)
        keys, scores = self._found[name]
        return keys[rows], scores[rows]

    def _look_up(self, name: str) -> tuple[Keys, Scores]:
        run = _first(_open(name, self.train, self.width), self.train, SPARE * self.width)
        place = positions_of(self.train.documents, [run["doc_id"]])
        if run.num_rows and len(place) < pc.count_distinct(run["doc_id"]).as_py():
            run = _without_unknown(run, place, name)
        rows = pc.index_in(run["query_id"], self.train.queries["query_id"].combine_chunks())
        rows, columns = rows.to_numpy().astype(np.int64), run["column"].to_numpy()
        keys = np.full((self.train.queries.num_rows, int(columns.max(initial=-1)) + 1), -1, dtype=np.int64)
        scores = np.full(keys.shape, -np.inf, dtype=np.float32)
        flat = np.fromiter((place[doc_id] for doc_id in run["doc_id"].to_pylist()), np.int64, run.num_rows)
        keys[rows, columns] = flat
        scores[rows, columns] = self.embeddings.similarities(self.vectors, rows, flat)
        bare = int((keys.max(axis=1, initial=-1) < 0).sum())
        if bare:
            log.warning("%s has no candidates for %d of %d queries", name, bare, len(keys))
        return keys, scores


def _open(name: str, train: Collection, depth: int) -> pa.Table:
    if name == BM25:
        from ranker.retrieval.bm25 import bm25_run

        log.info("looking up %d candidates a query with BM25", depth)
        return bm25_run(train.corpus, train.queries, depth)
    if name == DATA:
        if train.run is None:
            raise StageError(f"mine.candidates 'data': the data set {train.name} brings no run; name another source")
        return train.run
    return read_trec_run(existing_run(name))


def existing_run(name: str) -> Path:
    """The file of a run.

    Raises:
        StageError: where there is none.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        raise StageError(f"mine.candidates {name!r}: none of 'index', 'bm25', 'data', and no such TREC run file")
    return path


def _first(run: pa.Table, train: Collection, count: int) -> pa.Table:
    """The first rows of each query of the collection, with their ``column`` from 0."""
    run = run.filter(pc.is_in(run["query_id"], train.queries["query_id"].combine_chunks()))
    run = run.sort_by([("query_id", "ascending"), ("rank", "ascending")])
    if not run.num_rows:
        return run.append_column("column", pa.array([], pa.int64()))
    ids = run["query_id"].combine_chunks()
    changes = np.flatnonzero(np.append(True, pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)))
    columns = np.arange(len(ids)) - np.repeat(changes, np.diff(np.append(changes, len(ids))))
    return run.append_column("column", pa.array(columns)).filter(pa.array(columns < count))


def _without_unknown(run: pa.Table, place: dict[str, int], name: str) -> pa.Table:
    unknown = sorted(set(run["doc_id"].unique().to_pylist()) - place.keys())
    if name != DATA:
        raise StageError(
            f"mine.candidates {name!r}: {len(unknown)} documents that the corpus lacks, such as {unknown[:5]}; "
            "take a run over the corpus of the stage data"
        )
    log.warning("%d candidates of the data set are not in its corpus, such as %s", len(unknown), unknown[:5])
    return run.filter(pc.invert(pc.is_in(run["doc_id"], pa.array(unknown, pa.string()))))
