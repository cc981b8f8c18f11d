"""From texts to candidates: data, index, negatives."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ranker.config.scoring import ScoringConfig
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
    batch_size: Positive = local(64)
    """Documents a batch; a CPU takes at most 16."""
    precision: Precision = "auto"
    """Arithmetic of the encoder. auto: the fastest that the device does well."""
    shard_size: Positive = 50_000
    """Documents a shard of the index."""
    num_workers: Positive = local(2)
    """Encoder actors."""
    cpus_per_worker: float = local(1.0, gt=0)
    """Cores an actor."""
    gpus_per_worker: float = local(0.0, ge=0)
    """GPUs an actor; a fraction shares one."""
    embeddings_dir: str | None = local(None)
    """Folder of the embeddings. None: `embeddings` in the experiment's folder."""
    output_dir: str | None = local(None)
    """Folder of this stage. None: `index`."""


class TeacherConfig(Section):
    """A cross-encoder that reads the candidates again: it finds right answers that nobody has judged."""

    model: str | None = None
    """Reranker: a model folder, a hub id or an exported folder. None: no teacher."""
    action: Literal["drop", "relabel", "score"] = "drop"
    """What happens to a candidate above `max_score` or a margin, which are then read against the teacher's
    probabilities: drop leaves it out, relabel makes it a positive. score: the filters read the bi-encoder's
    similarities, and the teacher only scores what was chosen."""
    scoring: ScoringConfig = ScoringConfig()
    """Engine, precision and length."""
    num_workers: Positive = local(2)
    """Scoring actors."""
    cpus_per_worker: float = local(1.0, gt=0)
    """Cores an actor."""
    gpus_per_worker: float = local(0.0, ge=0)
    """GPUs an actor; a fraction shares one."""


class MineConfig(Section):
    """Choose hard negatives from the retriever's neighbours. Names as in sentence-transformers' miner."""

    num_negatives: Positive = 7
    """Negatives a query."""
    candidates: tuple[str, ...] = ("index",)
    """Where candidates come from: `index`, `bm25`, or the path of a TREC run. Several take turns, rank by rank; scores
    are the bi-encoder's similarities whatever the source."""
    num_candidates: Positive | None = None
    """Neighbours looked at a query. None: as many as the filters need, see `range_max`."""
    range_min: int = Field(0, ge=0)
    """Skip this many best neighbours."""
    range_max: Positive | None = None
    """Look no further than this rank, positives and copies of texts not counted. None: all candidates; where
    `num_candidates` is None too, sentence-transformers' own depth: `range_min` + ten times `num_negatives` (once, where
    no filter may drop any) + the positives of the query that has most."""
    max_score: float | None = None
    """Drop neighbours above this similarity."""
    min_score: float | None = None
    """Drop neighbours below this similarity."""
    absolute_margin: float | None = Field(None, ge=0)
    """Drop neighbours closer to the positive's similarity than this."""
    relative_margin: float | None = Field(0.05, ge=0, lt=1)
    """Drop neighbours above (1 - this) of the positive's similarity (NV-Retriever, arXiv:2407.15831)."""
    near_duplicates: float | None = Field(0.8, gt=0, le=1)
    """Drop neighbours whose text is as like as this to a positive's: the share of common word trigrams (Jaccard),
    estimated by min-hashes. None: only equal texts."""
    teacher: TeacherConfig = TeacherConfig()
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
        if self.num_candidates is not None and self.range_min >= self.num_candidates:
            raise ValueError(f"range_min {self.range_min} must be below num_candidates {self.num_candidates}")
        if self.range_max is not None and self.num_negatives > self.range_max - self.range_min:
            raise ValueError(
                f"num_negatives {self.num_negatives} is more than stands between range_min {self.range_min} and "
                f"range_max {self.range_max}"
            )
        if not self.candidates or len(set(self.candidates)) < len(self.candidates):
            raise ValueError(f"candidates {list(self.candidates)} must name one source or several different ones")
        return self

    @model_validator(mode="after")
    def _teacher_has_a_threshold(self) -> "MineConfig":
        asked = self.teacher.model is not None and self.teacher.action != "score"
        limits = (self.max_score, self.min_score, self.absolute_margin, self.relative_margin)
        if asked and all(limit is None for limit in limits):
            raise ValueError(
                f"teacher.action {self.teacher.action!r} needs max_score, absolute_margin or relative_margin, which "
                "say what the teacher takes for relevant; or set teacher.action to score"
            )
        return self
