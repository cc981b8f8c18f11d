"""Fine-tuning on examples that are in memory, in one call."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.config import Experiment, RayConfig
from ranker.data.examples import as_groups
from ranker.manifest import Done
from ranker.training.engine import choose_for_device
from ranker.training.zero import PrecisionError

log = logging.getLogger(__name__)

LARGEST_GROUP = 16
# What other trainers call it -> what `train.precision` calls it.
PRECISIONS = {None: "auto", "no": "fp32", "auto": "auto", "fp32": "fp32", "bf16": "bf16", "fp16": "fp16"}


class CrossEncoderTrainer:
    """Fine-tunes a cross-encoder through the stage ``train``: Ray Train with DeepSpeed, on a local cluster by default.

    Args:
        model_name: backbone: a model folder, a hub id, or the bundled ``all-MiniLM-L6-v2``.
        num_labels: outputs of the head; a ranker has one.
        loss_function: ``bce``, ``lce``, ``ranknet``, ``multiple_negatives`` or any other of
            ``ranker.training.losses.LOSSES``.
        use_lora, lora_r, lora_alpha: train adapters and the head instead of all weights.
        loss_options: keyword arguments of the loss. None: for ``bce`` the positives weigh as much as the negatives
            together, for the others nothing.
        seed: of order, dropout and new weights.
        ray: which cluster; None: RAY_ADDRESS when set, else a local one for the time of the call.
    """

    def __init__(
        self,
        model_name: str = "sentence-transformers/all-MiniLM-L6-v2",
        num_labels: int = 1,
        loss_function: str = "lce",
        use_lora: bool = False,
        lora_r: int = 8,
        lora_alpha: int = 16,
        *,
        loss_options: dict[str, float | str] | None = None,
        seed: int = 13,
        ray: RayConfig | None = None,
    ) -> None:
        self._loss_options = loss_options
        options = {
            "seed": seed,
            "train.model": str(model_name),
            "train.num_labels": num_labels,
            "train.loss": loss_function,
            "train.lora.enabled": use_lora,
            "train.lora.r": lora_r,
            "train.lora.alpha": lora_alpha,
        }
        self.config = Experiment(ray=ray or RayConfig()).with_overrides(options)

    def train(
        self,
        train_samples: Any,
        epochs: float = 1.0,
        batch_size: int = 16,
        learning_rate: float = 5e-5,
        output_dir: str | Path = "./models/reranker",
        mixed_precision: str | None = None,
        gradient_accumulation_steps: int = 1,
        *,
        num_workers: int | None = None,
        **settings: Any,
    ) -> Done:
        """Train and leave a model folder in ``output_dir``; the same call again continues, or finds it done.

        All examples of one query become one group, its positives beside its negatives. They are written to
        ``OUTPUT_DIR-data/groups.parquet``, from which ``ranker`` trains the same model on a cluster.

        Args:
            train_samples: (query, positive, negative) triples, (query, document, label) pairs, dicts with these
                names, the results of HardNegativeMiner, a table of TRIPLES, PAIRS or GROUPS, or the path of examples.
            epochs: passes over the queries. learning_rate: the peak.
            batch_size: queries a forward pass, over all workers; ``gradient_accumulation_steps`` of them make an
                optimiser step.
            output_dir: new, or of an earlier training.
            mixed_precision: ``fp16``, ``bf16``, ``no``; None for the best that the device has. fp16 is replaced by
                that best, with a warning, where the device cannot (many notebooks have no GPU); the stage itself
                (``train.precision``) refuses instead.
            num_workers: training processes. None: one a GPU, else two where the batch is even.
            settings: further fields of :class:`ranker.config.TrainConfig`, such as ``max_length=256``.

        Raises:
            ranker.data.errors.DataError: naming the examples that are none. ranker.config.ConfigError: all wrong
                settings at once. ModelNotFoundError, StageError, TrainingError: as ``fit``.
        """
        groups = as_groups(train_samples)
        folder = Path(output_dir).expanduser().absolute()
        workers = _workers(num_workers, batch_size)
        options = {
            "name": folder.name,
            "output_dir": str(folder.parent),
            "train.output_dir": str(folder),
            "train.groups": str(folder.with_name(f"{folder.name}-data") / "groups.parquet"),
            "train.epochs": epochs,
            "train.batch_size": batch_size * gradient_accumulation_steps,
            "train.gradient_accumulation_steps": gradient_accumulation_steps,
            "train.learning_rate": learning_rate,
            "train.group_size": _group_size(groups),
            "train.loss_options": self._options(groups),
            **workers,
            **{f"train.{name}": value for name, value in settings.items()},
        }
        on_gpu = float(options.get("train.gpus_per_worker", 0)) > 0
        options.setdefault("train.precision", _precision(mixed_precision, on_gpu))
        config = self.config.with_overrides(options)

        from ranker.training.trainer import fit

        _write(groups, Path(str(config.train.groups)))
        return fit(config)

    def _options(self, groups: pa.Table) -> dict[str, float | str]:
        if self._loss_options is not None or self.config.train.loss != "bce":
            return self._loss_options or {}
        labels = pc.list_flatten(groups["labels"])
        positives = pc.sum(pc.greater(labels, 0)).as_py() or 1
        weight = max(1.0, round((len(labels) - positives) / positives, 2))
        log.info("bce: a positive weighs %g, as there are that many negatives to each", weight)
        return {"pos_weight": weight}


def _write(groups: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pq.write_table(groups, temporary)
    temporary.replace(path)


def _group_size(groups: pa.Table) -> int:
    return min(LARGEST_GROUP, max(1, pc.max(pc.list_value_length(groups["documents"])).as_py()))


def _workers(wanted: int | None, batch_size: int) -> dict[str, Any]:
    import torch

    gpus = torch.cuda.device_count()
    number = wanted or gpus or 2
    while wanted is None and batch_size % number:
        number -= 1
    return {"train.num_workers": number, "train.gpus_per_worker": 1.0 if gpus else 0.0}


def _precision(wanted: str | None, on_gpu: bool) -> str:
    if wanted not in PRECISIONS:
        raise ValueError(f"mixed_precision {wanted!r}: must be one of {[*map(str, PRECISIONS)]}")
    if wanted != "fp16" or on_gpu:
        return PRECISIONS[wanted]
    try:
        choose_for_device(Experiment().with_overrides({"train.precision": "fp16"}).train, "cpu")
    except PrecisionError:
        best = choose_for_device(Experiment().train, "cpu")
        log.warning("mixed_precision='fp16': this processor does not compute in fp16; training in %s", best)
        return "auto"
    return "fp16"
