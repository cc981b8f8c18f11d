"""Fine-tuning and the sweep over it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ranker.config.section import Positive, Precision, Section, Share, local


class LoraConfig(Section):
    """Low-rank adapters (arXiv:2106.09685) beside a trained classification head."""

    enabled: bool = False
    """Train adapters and the head instead of all weights."""
    r: Positive = 8
    """Rank."""
    alpha: Positive = 16
    """Scale; the adapters count alpha / r."""
    dropout: Share = 0.0
    """Dropout before the adapters."""
    target_modules: tuple[str, ...] | None = None
    """Names of linear layers. None: all of the backbone's."""
    dora: bool = False
    """Weight-decomposed adapters (arXiv:2402.09353)."""
    rslora: bool = False
    """Rank-stabilised scale, alpha / sqrt(r) (arXiv:2312.03732)."""


class DeepSpeedConfig(Section):
    """The numbers that only DeepSpeed knows; the rest of its config is made from `train`."""

    stage: Literal[0, 1, 2, 3] = 2
    """ZeRO stage (arXiv:1910.02054): what is sharded over the workers."""
    offload: bool = False
    """Keep optimiser states (and parameters, stage 3) in main memory."""
    bucket_size: Positive = 50_000_000
    """Elements a reduction bucket."""
    initial_scale_power: Annotated[int, Field(ge=0, le=32)] = 16
    """fp16: the loss scale starts at two to this power."""


class TrainConfig(Section):
    """Fine-tune a cross-encoder."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Backbone: a model folder, a hub id, or the bundled one."""
    loss: str = "lce"
    """Name in the LOSSES registry."""
    loss_options: dict[str, float] = {}
    """Keyword arguments of the loss."""
    num_labels: Positive = 1
    """Outputs of the head; a ranker has one."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training groups; a fraction stops early."""
    max_steps: Positive | None = None
    """Stop after this many optimiser steps. None: epochs decide."""
    batch_size: Positive = 16
    """Groups an optimiser step, over all workers."""
    gradient_accumulation_steps: Positive = 1
    """Pieces in which a worker computes its share of a batch; needs less memory, changes no result."""
    group_size: Positive = 8
    """Documents a group, the positive included; longer groups are cut."""
    max_length: Positive = 160
    """Longest pair in tokens; the longer side is cut first, as `CrossEncoder` does."""
    learning_rate: float = Field(5e-5, gt=0)
    """Peak, for the backbone."""
    head_learning_rate: float | None = Field(None, gt=0)
    """Peak, for the new head. None: as the backbone."""
    warmup_ratio: Share = 0.1
    """Share of the steps in which the rate rises."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate falls after warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW (arXiv:1711.05101); not on biases and norms."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    dropout: Share | None = 0.0
    """Dropout of the backbone. None: as its folder says (often 0.1, which nearly doubles a CPU step)."""
    freeze_embeddings: bool = False
    """Leave the embeddings as they are: half the weights of a small model, and of what its workers exchange."""
    precision: Precision = "auto"
    """Arithmetic of the step; fp16 asked for where the device cannot is an error."""
    lora: LoraConfig = LoraConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    num_workers: Positive = 2
    """Ray Train workers; a step's rounding depends on it."""
    cpus_per_worker: float = local(1.0, gt=0)
    """Cores a worker."""
    gpus_per_worker: float = local(0.0, ge=0)
    """GPUs a worker."""
    checkpoint_every: Positive = local(25)
    """Optimiser steps between checkpoints."""
    log_every: Positive = local(10)
    """Optimiser steps between progress lines."""
    evaluate_every: Positive | None = local(None)
    """Optimiser steps between measurements on the dev queries. None: only at the end."""
    max_failures: int = local(2, ge=-1)
    """Lost workers survived before the run fails; -1 for no limit."""
    groups: str | None = None
    """GROUPS: a finished stage folder, a Parquet file or a folder of Parquet parts; or training examples in a format
    that `ranker data inspect` knows (FlagEmbedding, Tevatron, sentence-transformers). None: the folder of `mine`."""
    output_dir: str | None = local(None)
    """Folder of this stage, the model. None: `model`."""

    @model_validator(mode="after")
    def _shares(self) -> "TrainConfig":
        pieces = self.num_workers * self.gradient_accumulation_steps
        if self.batch_size % pieces:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of num_workers x gradient_accumulation_steps "
                f"({self.num_workers} x {self.gradient_accumulation_steps} = {pieces})"
            )
        return self


class TuneConfig(Section):
    """Search the space file over `fit`."""

    space: str = "tune_spaces/lora.yaml"
    """File of dotted config paths and samplers."""
    num_trials: Positive = 8
    """Trials."""
    metric: str = "ndcg@10"
    """Dev measure that decides."""
    search: Literal["random", "optuna"] = "optuna"
    """How the next trial is chosen."""
    max_concurrent: Positive | None = local(None)
    """Trials at once. None: as many as the resources hold."""
    output_dir: str | None = local(None)
    """Folder of this stage. None: `sweep`."""
