"""``RankerEvaluator``: the figures of a reranker in a notebook, through the same functions as the stage."""

import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import ray

from ranker.config import ScoringConfig
from ranker.evaluation.comparison import Comparison, compare_runs
from ranker.evaluation.evaluate import retrieval_depth, sample_queries
from ranker.evaluation.reranking import rerank_distributed, texts_of, top_of, with_tail
from ranker.evaluation.samples import samples_to_collection
from ranker.measures import DEFAULT_MEASURES, evaluate_run
from ranker.pretrained import BUNDLED, resolve
from ranker.schemas import RUN, Collection, document_texts
from ranker.scoring.rerank import rerank_run
from ranker.scoring.scorer import load_scorer

log = logging.getLogger(__name__)

Candidates = Literal["auto", "bm25", "retriever"]
Samples = Iterable[Mapping[str, Any] | Sequence[Any]]


class RankerEvaluator:
    """Measures one reranker on test data.

    Args:
        model_path: model folder, hub id, or exported ONNX folder.
        scoring: precision, length, engine and interpolation of the scorer.
        device: as torch names it. None: the first GPU, else the CPU.
        retriever_model: bi-encoder for ``candidates="retriever"``.

    Raises:
        ModelNotFoundError: where there is no such model.
    """

    def __init__(
        self,
        model_path: str | Path,
        *,
        scoring: ScoringConfig = ScoringConfig(),
        device: str | None = None,
        retriever_model: str = BUNDLED,
    ) -> None:
        self.model = resolve(model_path)
        self.scoring = scoring
        self.device = device
        self.retriever_model = retriever_model
        self._scorer: Any = None

    def evaluate(
        self,
        test_data: Collection | Samples,
        metrics: Sequence[str] = DEFAULT_MEASURES,
        *,
        candidates: Candidates = "auto",
        depth: int = 30,
        max_queries: int | None = None,
        seed: int = 13,
    ) -> dict[str, float]:
        """Metric -> mean of the reranked lists over the judged queries, as :meth:`compare` describes them."""
        collection, runs = self._runs(test_data, metrics, candidates, depth, max_queries, seed)
        return evaluate_run(
            runs["reranked"], collection.qrels, metrics, relevance_level=collection.relevance_level
        ).means

    def compare(
        self,
        test_data: Collection | Samples,
        metrics: Sequence[str] = DEFAULT_MEASURES,
        *,
        candidates: Candidates = "auto",
        depth: int = 30,
        max_queries: int | None = None,
        seed: int = 13,
        permutations: int = 10_000,
    ) -> Comparison:
        """The candidates before and after reranking, with the paired tests.

        Args:
            test_data: a Collection, or samples as :func:`samples_to_collection` takes them.
            metrics: names as in `ranker.measures`.
            candidates: whose documents are reranked. auto: the collection's own ``run`` (samples have one), else
                BM25's, which needs no model; retriever: the nearest by ``retriever_model``. A query without a
                candidate counts as not found, with a warning.
            depth: documents a query that are reranked; the samples' own lists are reranked whole.
            max_queries: a seeded sample of this many queries. None: all.
            seed: of the sample and the tests. permutations: of the randomisation test.

        Raises:
            ValueError: for samples of another shape. StageError: without judged queries. MeasureError.
        """
        collection, runs = self._runs(test_data, metrics, candidates, depth, max_queries, seed)
        return compare_runs(
            runs,
            collection.qrels,
            metrics,
            relevance_level=collection.relevance_level,
            permutations=permutations,
            seed=seed,
        )

    def _runs(
        self,
        test_data: Collection | Samples,
        metrics: Sequence[str],
        candidates: Candidates,
        depth: int,
        max_queries: int | None,
        seed: int,
    ) -> tuple[Collection, dict[str, pa.Table]]:
        """The judged queries, and their RUN before (under its own name) and after reranking."""
        if isinstance(test_data, Collection):
            collection = sample_queries(test_data, max_queries, seed)
        else:
            collection = sample_queries(samples_to_collection(test_data), max_queries, seed)
            depth = longest_list(collection)
        name, first = self._first_stage(collection, candidates, retrieval_depth(depth, metrics))
        return collection, {name: first, "reranked": with_tail(self._rerank(first, collection, depth), first)}

    def _first_stage(self, collection: Collection, candidates: Candidates, depth: int) -> tuple[str, pa.Table]:
        if candidates == "auto" and (run := own_candidates(collection)) is not None:
            return "candidates", top_of(run, depth)
        if candidates == "retriever":
            return "retriever", _dense_run(self.retriever_model, collection, depth)
        if candidates not in ("auto", "bm25"):
            raise ValueError(f"candidates {candidates!r} is not one of auto, bm25, retriever")
        from ranker.retrieval.bm25 import bm25_run

        return "bm25", bm25_run(collection.corpus, collection.queries, depth)

    def _rerank(self, first: pa.Table, collection: Collection, depth: int) -> pa.Table:
        """In this process, or on the Ray cluster that is already connected."""
        top = top_of(first, depth)
        if ray.is_initialized():
            with tempfile.TemporaryDirectory() as folder:
                shards = Path(folder)
                return rerank_distributed(self.model, top, collection, depth, scoring=self.scoring, folder=shards).run
        if self._scorer is None:
            self._scorer = load_scorer(self.model, self.scoring, self.device)
        weight = self.scoring.interpolation
        return rerank_run(self._scorer, top, collection.queries, texts_of(top, collection), depth, weight)


def own_candidates(collection: Collection) -> pa.Table | None:
    """RUN of the collection's own candidates that can be reranked; None where there are none for its queries."""
    if collection.run is None:
        return None
    run = collection.run.filter(pc.is_in(collection.run["query_id"], collection.queries["query_id"]))
    if unknown := collection.documents.missing(run["doc_id"]):
        known = run.filter(pc.invert(pc.is_in(run["doc_id"], pa.array(unknown))))
        log.warning(
            "%r: %d of %d candidates name documents that are not in the corpus (%d of them, such as %r); they are "
            "left out", collection, run.num_rows - known.num_rows, run.num_rows, len(unknown), unknown[0],
        )  # fmt: skip
        run = known
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


def longest_list(collection: Collection) -> int:
    """Candidates of the query that has most, 1 at least."""
    ranks = collection.run["rank"].to_pylist() if collection.run is not None else []
    return max(ranks, default=1)


def _dense_run(model: str, collection: Collection, depth: int) -> pa.Table:
    """RUN of the nearest documents by a bi-encoder, exact, all in this process."""
    from ranker.retrieval.encoder import Encoder
    from ranker.retrieval.stores import STORES

    encoder = Encoder(model)
    store = STORES["faiss"](encoder.dimension)
    store.add(collection.corpus["doc_id"].to_pylist(), encoder.encode_documents(document_texts(collection.corpus)))
    query_ids = collection.queries["query_id"].to_pylist()
    found, scores = store.search(encoder.encode_queries(collection.queries["text"].to_pylist()), depth)
    rows = [
        (query_id, doc_id, float(score), rank)
        for query_id, doc_ids, values in zip(query_ids, found, scores, strict=True)
        for rank, (doc_id, score) in enumerate(zip(doc_ids, values, strict=False), start=1)
    ]
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=RUN)
