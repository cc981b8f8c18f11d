"""``RankerEvaluator``: the figures of a reranker in a notebook, through the same functions as the stage."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ranker.config import ScoringConfig
from ranker.evaluation.comparison import Comparison, compare_runs
from ranker.evaluation.evaluate import retrieval_depth, sample_queries
from ranker.evaluation.reranking import rerank_distributed, top_of, with_tail
from ranker.evaluation.samples import samples_to_collection
from ranker.measures import DEFAULT_MEASURES
from ranker.pretrained import BUNDLED, resolve
from ranker.schemas import Collection, require

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
        comparison = self.compare(
            test_data,
            metrics,
            candidates=candidates,
            depth=depth,
            max_queries=max_queries,
            seed=seed,
            permutations=1,
        )
        return comparison.means()["reranked"]

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
                BM25's, which needs no model; retriever: the nearest by ``retriever_model``.
            depth: documents a query that are reranked; the samples' own lists are reranked whole.
            max_queries: a seeded sample of this many queries. None: all.
            seed: of the sample and the tests. permutations: of the randomisation test.

        Raises:
            ValueError: for samples of another shape. StageError: without judged queries. MeasureError.
        """
        if isinstance(test_data, Collection):
            collection = sample_queries(test_data, max_queries, seed)
        else:
            collection = sample_queries(samples_to_collection(test_data), max_queries, seed)
            depth = max(depth, max(collection.run["rank"].to_pylist(), default=1)) if collection.run else depth
        name, first = self._first_stage(collection, candidates, retrieval_depth(depth, metrics))
        reranked = with_tail(self._rerank(first, collection, depth), first)
        return compare_runs(
            {name: first, "reranked": reranked}, collection.qrels, metrics, permutations=permutations, seed=seed
        )

    def _first_stage(self, collection: Collection, candidates: Candidates, depth: int) -> tuple[str, pa.Table]:
        if candidates == "auto" and collection.run is not None:
            run = collection.run
            wanted = collection.queries["query_id"]
            return "candidates", top_of(run.filter(pa.compute.is_in(run["query_id"], wanted)), depth)
        if candidates == "retriever":
            return "retriever", _dense_run(self.retriever_model, collection, depth)
        if candidates not in ("auto", "bm25"):
            raise ValueError(f"candidates {candidates!r} is not one of auto, bm25, retriever")
        from ranker.retrieval.bm25 import bm25_run

        return "bm25", bm25_run(collection.corpus, collection.queries, depth)

    def _rerank(self, first: pa.Table, collection: Collection, depth: int) -> pa.Table:
        """In this process, or on the Ray cluster that is already connected."""
