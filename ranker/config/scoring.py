"""What is done with a trained reranker: score, measure, export, serve; and the cluster for all of it."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ranker.config.section import Positive, Section, Share, local


def _as_several(value: Any) -> Any:
    """One depth is a list of one."""
    return (value,) if isinstance(value, (int, float, str)) else value


Depths = Annotated[tuple[Positive, ...], BeforeValidator(_as_several), Field(min_length=1)]


class ScoringConfig(Section):
    """How a cross-encoder scores pairs."""

    engine: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    """auto: the fastest that ranks as torch fp32 does, measured at the first start and remembered; see `precision`."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Arithmetic of torch and of OpenVINO; of `onnx`, that of the graph that is taken. With one that is named, auto as
    an engine is torch, and with int8, which torch does not have, `onnx`."""
    batch_tokens: Positive = 8192
    """Token budget of a batch, padding included; a CPU computes at most 2,048 at once."""
    max_length: Positive | None = None
    """Longest pair in tokens. None: as trained."""
    threads: Positive | None = local(None)
    """Threads of this process. None: the cores that it may use, a container's limit included."""
    lanes: Positive | None = local(None)
    """Batches computed at the same time, which share the threads. None: measured where the engine is, else 1."""
    samples: str | None = local(None)
    """GROUPS file (as `mine` writes it) whose pairs auto measures on. None: that of `mine` beside the model, else
    64 built-in pairs."""
    num_samples: Positive = local(256)
    """Pairs that auto measures on."""
    min_rank_correlation: Share = 0.99
    """auto: smallest allowed Spearman correlation with torch fp32 on the samples."""
    max_ndcg_loss: float = Field(0.002, ge=0)
    """auto: largest allowed loss in NDCG@10 on the samples."""
    max_passages: Positive = 1
    """Passages of a long document that are read, each as long as a pair has room for. 1: it is cut as in training."""
    passage_score: Literal["max", "first"] = "max"
    """Which passage speaks for a document: the best one, or the first, whose others are then not read."""
    cascade_tokens: Positive | None = None
    """Read this many tokens of every pair of a list first, and only the best in full. None: all in full."""
    cascade_keep: Positive = 20
    """Documents a query that a cascade reads in full."""
    cache_pairs: int = Field(0, ge=0, json_schema_extra={"local": True})
    """Scored pairs that are remembered, the oldest forgotten first; about 150 bytes each. 0: none."""
    interpolation: Share = 0.0
    """Weight of the retriever's score: (1 - w) reranker + w retriever, each scaled to 0-1 in a query's list."""


class EvaluateConfig(Section):
    """Retrieve, rerank and measure."""

    measures: tuple[str, ...] = ("ndcg@10", "mrr@10", "map", "hit_rate@10")
    """Names as in `ranker.measures`; the first decides."""
    relevance_level: Positive | None = None
    """From which judgement on binary measures count a document as relevant. None: as the data set says (TREC DL: 2)."""
    first_stage: str = "retriever"
    """Whose documents are reranked: `retriever` (the index), `bm25`, `candidates` (the data set's own), or the path of
    a run file."""
    bm25: bool = True
    """Also measure BM25."""
    depth: Depths = (30,)
    """Documents of the first stage that are reranked. Several are measured in one go; the first is the main one."""
    rerank_missed_positives: bool = False
    """Also rerank the relevant documents that the first stage missed: figures rise above what a user gets, and only
    models are comparable. It is the default of sentence-transformers."""
    max_queries: Positive | None = None
    """Use a seeded sample of this many queries. None: all."""
    significance_permutations: Positive = 10_000
    """Sign flips of Fisher's randomisation test, and resamples of the intervals."""
    correction: Literal["holm", "bonferroni", "none"] = "holm"
    """Of the p-values of a measure for the number of tests."""
    model: str | None = None
    """Reranker. None: the folder of `train`."""
    models: tuple[str, ...] = ()
    """Further rerankers, measured beside it on the same documents."""
    suite: str | tuple[str, ...] | None = None
    """Measure on these collections instead of the experiment's data, and their mean: names, paths, or a folder whose
    subfolders and zips are collections. Needs a first stage that is not `retriever`."""
    suite_split: str = "test"
    """Split of each collection of a suite."""
    latency_queries: int = Field(20, ge=0)
    """Queries timed alone, one after another, at each depth; fewer where they take long."""
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
    int8_recipe: Literal["auto", "dynamic", "rows", "static", "mixed", "blockwise"] = "auto"
    """How int8 is made: dynamic measures activations as they come, a batch at a time; rows does, after each token was
    scaled by itself and channels that are loud on sample pairs were made quieter (SmoothQuant); static has measured
    activations on sample pairs; mixed is dynamic without the layers that suffer most; blockwise scales blocks of 32
    weights. auto: the first of them that is faithful."""
    num_calibration: Positive = 64
    """Pairs that rows and static are calibrated on, others than those of the check where there are enough."""
    max_score_difference: float | None = Field(None, gt=0)
    """Largest allowed difference to torch fp32, in logits. None: 0.001 in fp32, 0.05 in fp16 (its weights hold three
    digits), and none in int8, which is held by its rank correlation."""
    min_rank_correlation: Share = 0.99
    """Smallest allowed Spearman correlation with torch fp32 on sample pairs."""
    max_ndcg_loss: float = Field(0.002, ge=0)
    """Largest allowed loss in NDCG@10 on sample pairs."""
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
