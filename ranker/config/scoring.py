"""What is done with a trained reranker: score, measure, export, serve; and the cluster for all of it."""

from typing import Literal

from pydantic import Field

from ranker.config.section import Positive, Precision, Section, Share, local


class ScoringConfig(Section):
    """How a cross-encoder scores pairs."""

    engine: Literal["auto", "torch", "onnx"] = "auto"
    """auto: ONNX Runtime for an exported folder, torch otherwise."""
    precision: Precision = "auto"
    """Arithmetic of the torch engine."""
    batch_tokens: Positive = 8192
    """Token budget of a batch, padding included."""
    max_length: Positive | None = None
    """Longest pair in tokens. None: as trained."""
    interpolation: Share = 0.0
    """Weight of the retriever's score: (1 - w) reranker + w retriever, each scaled to 0-1 in a query's list."""


class EvaluateConfig(Section):
    """Retrieve, rerank and measure."""

    measures: tuple[str, ...] = ("ndcg@10", "mrr@10", "map", "hit_rate@10")
    """Names as in `ranker.measures`."""
    depth: Positive = 30
    """Documents of the first stage that are reranked."""
    bm25: bool = True
    """Also measure BM25."""
    max_queries: Positive | None = None
    """Use a seeded sample of this many queries. None: all."""
    significance_permutations: Positive = 10_000
    """Sign flips of Fisher's randomisation test."""
    model: str | None = None
    """Reranker. None: the folder of `train`."""
    scoring: ScoringConfig = ScoringConfig()
    num_workers: Positive = local(2)
    """Scoring actors; fewer when the cluster has fewer cores, which they share."""
    gpus_per_worker: float = local(0.0, ge=0)
    """GPUs a scoring actor; a fraction shares one."""
    output_dir: str | None = local(None)
    """Folder of this stage. None: `evaluation`."""


class ExportConfig(Section):
    """Write the reranker as an ONNX folder."""

    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Weights of the graph."""
    max_score_difference: float | None = Field(None, gt=0)
    """Largest allowed difference to torch fp32, in logits. None: 0.001 in fp32, 0.05 in fp16 (its weights hold three
    digits), and none in int8, which is held by its rank correlation."""
    min_rank_correlation: Share = 0.99
    """Smallest allowed Spearman correlation with torch fp32 on sample pairs."""
    num_samples: Positive = 64
    """Pairs used for the check."""
    model: str | None = None
    """Reranker. None: the folder of `train`."""
    output_dir: str | None = local(None)
    """Folder of this stage. None: `onnx`."""


class ServeConfig(Section):
    """What the Serve application loads; how it scales stands in serve_configs/."""

    reranker: str | None = None
    """Model folder, torch or ONNX. None: the exported one, else the folder of `train`."""
    index: str | None = None
    """Index folder. None: the folder of `index`."""
    scoring: ScoringConfig = ScoringConfig()
    max_documents: Positive = 1000
    """Documents a request; more are refused with 422."""
    top_k: Positive = 50
    """Neighbours that /search reranks."""


class RayConfig(Section):
    """The cluster that the shells connect to."""

    address: str | None = local(None)
    """None: RAY_ADDRESS when set (as in a submitted job), else a local cluster that stops with the program."""
    num_cpus: Positive | None = local(None)
    """Cores of a local cluster. None: those that this process may use, two at least."""
