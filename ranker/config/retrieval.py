"""From texts to candidates: data, index, negatives."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ranker.config.section import Positive, Precision, Section, Share, local


class DataConfig(Section):
    """Where corpus, queries and judgements come from."""

    source: str = "pydocs"
    """A registered data set (`pydocs`, `msmarco`, `beir/scifact`), `ir_datasets:ID`, `hf:ORG/NAME`, or the path of a
    folder, zip or file in a format that `ranker data inspect` knows."""
    options: dict[str, Any] = {}
    """Of the source (`format`, `encoding`, `config`) and of the reading (`max_documents`, `max_queries`,
    `allow_missing`)."""
    train_split: str = "train"
    """Name of the split that is mined and trained on."""
    dev_split: str | None = "dev"
    """Name of the split that decides. None: held out from train, whatever the source has."""
    test_split: str | None = "test"
    """Name of the split that is reported. None: held out from train, whatever the source has."""
    output_dir: str | None = local(None)
    """Folder of this stage. None: `data` in the experiment's folder."""


class IndexConfig(Section):
    """Encode the corpus with a bi-encoder and build a vector index from it."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Bi-encoder: a model folder, a hub id, or the name of the bundled one."""
    store: str = "faiss"
    """Name in the STORES registry."""
    factory: str = "Flat"
    """`faiss.index_factory` string; inner product on normalised vectors."""
    max_length: Positive | None = 256
    """Longest input in tokens. None: what the model folder says."""
    batch_size: Positive = 64
    """Documents a batch."""
    precision: Precision = "auto"
    """Arithmetic of the encoder. auto: the fastest that the device does well."""
    shard_size: Positive = 50_000
    """Documents a shard of embeddings and of the index."""
    num_workers: Positive = local(2)
    """Encoder actors."""
    cpus_per_worker: float = local(1.0, gt=0)
    """Cores an actor."""
    gpus_per_worker: float = local(0.0, ge=0)
    """GPUs an actor; a fraction shares one."""
    output_dir: str | None = local(None)
    """Folder of this stage. None: `index`."""


class MineConfig(Section):
    """Choose hard negatives from the retriever's neighbours. Names as in sentence-transformers' miner."""

    num_negatives: Positive = 7
    """Negatives a query."""
    num_candidates: Positive = 100
    """Neighbours looked at a query."""
    range_min: int = Field(0, ge=0)
    """Skip this many best neighbours."""
    range_max: Positive | None = None
    """Look no further than this rank. None: all candidates."""
    max_score: float | None = None
    """Drop neighbours above this similarity."""
    min_score: float | None = None
    """Drop neighbours below this similarity."""
    absolute_margin: float | None = Field(None, ge=0)
    """Drop neighbours closer to the positive's similarity than this."""
    relative_margin: float | None = Field(0.05, ge=0, lt=1)
    """Drop neighbours above (1 - this) of the positive's similarity (NV-Retriever, arXiv:2407.15831)."""
    sampling_strategy: Literal["top", "random"] = "top"
    """Which of the remaining neighbours: the best, or a seeded sample."""
    random_ratio: Share = 0.0
    """Share of the negatives that is drawn from the whole corpus instead."""
    max_queries: Positive | None = None
    """Mine for a seeded sample of this many queries. None: all."""
    num_dev_queries: int = Field(100, ge=0)
    """Dev queries whose candidates are kept for `fit` to measure itself on; a seeded sample."""
    dev_depth: Positive = 30
    """Candidates a dev query."""
    output_dir: str | None = local(None)
    """Folder of this stage. None: `mine`."""

    @model_validator(mode="after")
    def _ranges(self) -> "MineConfig":
        if self.range_max is not None and self.range_max <= self.range_min:
            raise ValueError(f"range_max {self.range_max} must be above range_min {self.range_min}")
        if self.range_min >= self.num_candidates:
            raise ValueError(f"range_min {self.range_min} must be below num_candidates {self.num_candidates}")
        return self
