"""``RankerEvaluator``: the figures of a reranker in a notebook, through the same functions as the stage."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from ranker.config import ScoringConfig
from ranker.evaluation.candidates import longest_list, own_candidates, sample_queries
from ranker.evaluation.comparison import Comparison, compare_runs
from ranker.evaluation.lists import reordered, top_of, with_missed, with_tail
from ranker.evaluation.reranking import score_distributed
from ranker.evaluation.samples import samples_to_collection
from ranker.evaluation.systems import retrieval_depth
from ranker.evaluation.tasks import Tasks, write_tasks
from ranker.measures import DEFAULT_MEASURES, evaluate_run
from ranker.pretrained import BUNDLED, resolve
from ranker.schemas import RUN, Collection, document_texts
from ranker.scoring.rerank import interpolate
from ranker.scoring.scorer import load_scorer

Candidates = Literal["auto", "bm25", "retriever"]
Samples = Iterable[Mapping[str, Any] | Sequence[Any]]


class RankerEvaluator:
    """Measures one reranker on test data.

    Args:
        model_path: model folder, hub id, or exported ONNX folder.
        scoring: precision, length, engine and interpolation of the scorer.
        device: as torch names it. None: the first GPU, else the CPU. Where Ray is connected it scores on the node of
            this process, and of several GPUs Ray chooses.
        retriever_model: bi-encoder for ``candidates="retriever"``.
        rerank_missed_positives: also rerank the relevant documents that the candidates lack, as sentence-transformers
            does by default; figures rise above what a user gets.

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
        rerank_missed_positives: bool = False,
    ) -> None:
        self.model = resolve(model_path)
        self.scoring = scoring
        self.device = device
        self.retriever_model = retriever_model
        self.rerank_missed_positives = rerank_missed_positives
        self._scorer: Any = None

    def evaluate(
        self,
        test_data: Collection | Samples | str,
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
        test_data: Collection | Samples | str,
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
            test_data: a Collection, the name or path of one (its test split), or samples as
                :func:`samples_to_collection` takes them.
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
        test_data: Collection | Samples | str,
        metrics: Sequence[str],
        candidates: Candidates,
        depth: int,
        max_queries: int | None,
        seed: int,
    ) -> tuple[Collection, dict[str, pa.Table]]:
        """The judged queries, and their RUN before (under its own name) and after reranking."""
        if isinstance(test_data, str):
            from ranker.data.catalog import load

            test_data = load(test_data, "test")
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
        """In this process, or by actors on this node where Ray is connected; texts lie on its disk meanwhile."""
        top = top_of(first, depth)
        if self.rerank_missed_positives:
            top = with_missed(top, collection.relevant(), collection)
        with tempfile.TemporaryDirectory(prefix="ranker-evaluate-") as folder:
            tasks = write_tasks(top, collection, Path(folder))
            scores = self._on_cluster(tasks, Path(folder) / "scores") if ray.is_initialized() else self._score(tasks)
        return interpolate(reordered(top, scores), top, self.scoring.interpolation)

    def _on_cluster(self, tasks: Tasks, folder: Path) -> NDArray[np.float64]:
        # The texts lie on this machine's own disk, which no other node sees.
        node = ray.get_runtime_context().get_node_id()
        gpus = sum(each["Resources"].get("GPU", 0.0) for each in ray.nodes() if each["NodeID"] == node)
        wanted = (self.device or "cuda").startswith("cuda")
        if self.device and wanted and gpus < 1:
            raise ValueError(f"device {self.device!r}: Ray has no GPU on this node; use 'cpu', or ray.init(num_gpus=1)")
        on_gpu = wanted and gpus >= 1
        return score_distributed(
            self.model,
            tasks,
            folder,
            scoring=self.scoring,
            device="cuda" if on_gpu else self.device,  # Ray shows an actor its own GPU alone
            num_workers=1 if on_gpu else 2,
            gpus_per_worker=float(on_gpu),
            node=node,
        ).scores

    def _score(self, tasks: Tasks) -> NDArray[np.float64]:
        if self._scorer is None:
            self._scorer = load_scorer(self.model, self.scoring, self.device)
        found = [self._scorer.score(tasks.of_task(number)) for number in range(len(tasks))]
        return np.concatenate([np.zeros(0), *found]).astype(np.float64)


def _dense_run(model: str, collection: Collection, depth: int) -> pa.Table:
    """RUN of the nearest documents by a bi-encoder, exact, all in this process."""
    from ranker.retrieval.encoder import Encoder
    from ranker.retrieval.stores import STORES

    encoder = Encoder(model)
    store = STORES["faiss"](encoder.dimension)
    for block in collection.documents.blocks():  # only vectors are kept
        store.add(block["doc_id"].to_pylist(), encoder.encode_documents(document_texts(block)))
    query_ids = collection.queries["query_id"].to_pylist()
    found, scores = store.search(encoder.encode_queries(collection.queries["text"].to_pylist()), depth)
    rows = [
        (query_id, doc_id, float(score), rank)
        for query_id, doc_ids, values in zip(query_ids, found, scores, strict=True)
        for rank, (doc_id, score) in enumerate(zip(doc_ids, values, strict=False), start=1)
    ]
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=RUN)
