"""Fine-tuning."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ranker.config.section import Positive, Precision, Section, Share, local

# YAML reads 1e-3 as text, which must still become a number.
LossOption = Annotated[float | str, Field(union_mode="left_to_right")]


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
    target_modules: tuple[str, ...] | Literal["auto"] = "auto"
    """Names of linear layers. ``auto``: all of the backbone's."""
    dora: bool = False
    """Weight-decomposed adapters (arXiv:2402.09353)."""
    rslora: bool = False
    """Rank-stabilised scale, alpha / sqrt(r) (arXiv:2312.03732)."""
    quantize: Literal["nf4"] | None = None
    """Hold the frozen weights in four bits (QLoRA, arXiv:2305.14314); needs a GPU and the package bitsandbytes."""


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


class DistillConfig(Section):
    """A second loss, against the scores that GROUPS carry: the teacher's of `mine`, else the retriever's."""

    weight: Share = 0.0
    """Share of this loss; the labels' loss has the rest. 0: labels alone."""
    loss: str = "listnet"
    """Name in the LOSSES registry; the scores stand where the labels would."""
    loss_options: dict[str, LossOption] = {}
    """Keyword arguments of the loss."""
    scale: float = Field(20.0, gt=0)
    """Factor on the scores: 20 makes logits of a retriever's cosines, 1 leaves a teacher's logits as they are."""


class MixConfig(Section):
    """Further groups that take a share of every batch, against forgetting what the training set does not hold."""

    groups: str
    """As `train.groups`, or ``pydocs``: general text (docstrings of the installed packages), prepared and mined first.
    Dev queries that lie beside them are measured too."""
    share: float = Field(gt=0, lt=1)
    """Share of a batch's groups."""


class TrainConfig(Section):
    """Fine-tune a cross-encoder."""

    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Backbone: a model folder, a hub id, or the bundled one."""
    loss: str = "lce"
    """Name in the LOSSES registry."""
    loss_options: dict[str, LossOption] = {}
    """Keyword arguments of the loss."""
    target: Literal["labels", "scores"] = "labels"
    """What the loss compares with: the groups' labels, or the scores that they carry (distillation alone)."""
    distill: DistillConfig = DistillConfig()
    mix: tuple[MixConfig, ...] = ()
    """Further groups in every batch."""
    in_batch_negatives: int | None = Field(None, ge=0)
    """Documents of the batch's other queries that each group gets beside its own. None: 4 for the losses that live on
    them (``multiple_negatives``), else 0."""
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
    length_window: Positive = 1
    """Batches whose groups are shared out by length: more means less padding, and batches less alike."""
    tokens_per_pass: Positive | None = local(None)
    """Tokens of a forward pass, padding included; a batch takes as many passes as it needs. None: 512 on a CPU
    in fp32, 2,048 in bf16, 32,768 on a GPU."""
    activation_checkpointing: bool = local(False)
    """Compute each layer's activations again in the backward pass instead of keeping them: less memory, a third more
    time."""
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
    average_start: Share = 0.0
    """Weight of the backbone's first weights in the final model (arXiv:2109.01903); the head is the trained one."""
    precision: Precision = "auto"
    """Arithmetic of the step; fp16 asked for where the device cannot is an error."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """How attention is computed. ``auto``: unpadded (flash_attention_2) where the GPU, the model and the installed
    packages can, ``eager`` in bf16 on a CPU, else ``sdpa``."""
    lora: LoraConfig = LoraConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    num_workers: Positive | tuple[Positive, Positive] = 2
    """Ray Train workers, or (fewest, most) of an elastic run; a step's rounding depends on it."""
    cpus_per_worker: float = local(1.0, gt=0)
    """Cores a worker."""
    gpus_per_worker: float = local(0.0, ge=0)
    """GPUs a worker."""
    checkpoint_every: Positive = local(25)
    """Optimiser steps between checkpoints."""
    log_every: Positive = local(10)
    """Optimiser steps between progress lines."""
    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = local("SPREAD")
    """How Ray places the workers on the nodes."""
    evaluate_every: Positive | None = None
    """Optimiser steps between measurements on the dev queries; the best weights become the model. None: only at the
    end."""
    metric: str = "ndcg@10"
    """Dev measure that says which weights are best: its mean over the dev sets."""
    patience: Positive | None = None
    """Measurements without a better one after which the run stops. None: never."""
    keep_best: Positive = 1
    """The best k measured models that stay; beyond the first as folders `step-N` in the model's."""
    max_failures: int = local(2, ge=-1)
    """Lost workers survived before the run fails; -1 for no limit."""
    storage: str | None = local(None)
    """Where checkpoints are kept while it runs: a folder that all nodes see, or a URI such as ``s3://bucket/path``.
    None: beside the model."""
    track: tuple[str, ...] = local(())
    """Where the numbers of the log also go: ``tensorboard``, ``mlflow``, ``wandb``."""
    record_order: bool = local(False)
    """Leave `order.jsonl` in the model folder: the query ids that each step learnt from."""
    groups: str | None = None
    """GROUPS: a finished stage folder, a Parquet file or a folder of Parquet parts; or training examples in a format
    that `ranker data inspect` knows (FlagEmbedding, Tevatron, sentence-transformers). None: the folder of `mine`."""
    output_dir: str | None = local(None)
    """Folder of this stage, the model. None: `model`."""

    @property
    def most_workers(self) -> int:
        """Workers when all resources are there."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @property
    def fewest_workers(self) -> int:
        """Workers without which an elastic run waits."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @model_validator(mode="after")
    def _shares(self) -> "TrainConfig":
        if self.fewest_workers > self.most_workers:
            raise ValueError(f"num_workers {self.num_workers}: write the fewest first")
        least = self.most_workers * self.gradient_accumulation_steps
        if self.batch_size < least:
            raise ValueError(
                f"batch_size {self.batch_size} must be at least num_workers x gradient_accumulation_steps "
                f"({self.most_workers} x {self.gradient_accumulation_steps} = {least}), so that each has a group"
            )
        if (self.patience is not None or self.keep_best > 1) and self.evaluate_every is None:
            raise ValueError("patience and keep_best need evaluate_every: measurements on the way, to choose between")
        if (mixed := sum(mix.share for mix in self.mix)) >= 1:
            raise ValueError(f"mix takes {mixed:.0%} of a batch; leave a share to the groups")
        return self
