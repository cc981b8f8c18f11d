"""The torch engine: a sequence classifier in fp32, bf16 or fp16, on a CPU or a GPU."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from ranker.config import Precision
from ranker.machine import cpu_has_bf16, instruction_sets
from ranker.precision import lower_precision
from ranker.scoring.batches import Batch
from ranker.scoring.first_token import probe_logits, trim_last_layer
from ranker.scoring.lanes import Lanes, usable_threads
from ranker.scoring.masks import additive_mask, takes_additive_mask
from ranker.scoring.model_folder import ModelFiles, NotARerankerError, find_model, read_config
from ranker.torch_on_cpu import PAD_TO_MULTIPLE_OF, give_back_freed_blocks, keep_freed_blocks, pack_linear_layers

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """Logits of padded batches through torch.

    Args:
        model: a sequence classifier with one label, in eval mode, on its device.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        device: as torch names it.
        threads: of all lanes, on a CPU. None: those that this process may use.
        lanes: batches at the same time, on a CPU; they share the weights.
        additive: the model takes the mask of :func:`ranker.scoring.masks.additive_mask`, on a CPU.
    """

    name = "torch"

    def __init__(
        self,
        model: nn.Module,
        precision: str,
        device: str,
        threads: int | None = None,
        lanes: int = 1,
        additive: bool = False,
    ) -> None:
        self.model = model
        self.precision = precision
        self.device = device
        on_cpu = device.startswith("cpu")
        self._additive = additive and on_cpu
        self.pad_to_multiple_of = PAD_TO_MULTIPLE_OF if on_cpu and precision == "bf16" else 1
        self.lanes = Lanes(lanes if on_cpu else 1, threads or usable_threads(), torch_threads=on_cpu)
        if on_cpu:
            keep_freed_blocks()

    def logits(self, batch: Batch) -> np.ndarray:
        """float32 (rows,) of int64 (rows, tokens) columns."""
        with torch.inference_mode():
            tensors: dict[str, Any] = {name: torch.from_numpy(table).to(self.device) for name, table in batch.items()}
            if self._additive:
                tensors["attention_mask"] = additive_mask(tensors["attention_mask"], DTYPES[self.precision])
            return self.model(**tensors).logits.float().squeeze(-1).cpu().numpy()


def load_torch_engine(
    files: ModelFiles,
    precision: Precision = "auto",
    device: str | None = None,
    threads: int | None = None,
    lanes: int = 1,
) -> TorchEngine:
    """The engine of a model folder, LoRA adapters merged.

    Args:
        files: from :func:`ranker.scoring.model_folder.find_model`.
        precision: ``auto`` is bf16 where the device multiplies it in hardware, fp32 on other CPUs.
        device: as torch names it. None: the first GPU, else the CPU.
        threads, lanes: see :class:`TorchEngine`.

    Raises:
        NotARerankerError: no trained head, more than one label, or weights that are not finite.
        ValueError: a precision that the device cannot do, or a device that is not there.
    """
    device = choose_device(device)
    chosen = choose_precision(precision, device)
    model: Any = load_model(files)
    trim_last_layer(model)
    additive = takes_additive_mask(model)
    if chosen != "fp32":
        lower_precision(model, DTYPES[chosen])
        _head_in_float32(model)
    if chosen == "bf16" and device.startswith("cpu"):
        pack_linear_layers(model, partial(probe_logits, model), least=1.0)
    if device.startswith("cpu"):
        give_back_freed_blocks()
    return TorchEngine(model.to(device).eval(), chosen, device, threads, lanes, additive)


def load_model(files: ModelFiles | str | Path) -> PreTrainedModel:
    """The whole classifier in fp32 on the CPU, in eval mode, adapters merged, every weight finite.

    Raises:
        NotARerankerError: no trained head, more than one label, or a weight that is NaN or infinite.
    """
    files = files if isinstance(files, ModelFiles) else find_model(files)
    if not files.weights:
        raise NotARerankerError(f"{files.name}: has no torch weights (*.safetensors), only an ONNX graph")
    model, report = AutoModelForSequenceClassification.from_pretrained(
        files.base,
        config=read_config(files),
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if files.adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, files.model).merge_and_unload()
    elif missing := sorted(report["missing_keys"]):
        raise NotARerankerError(f"{files.name}: the weights lack {', '.join(missing)}; train it, or save it whole")
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise NotARerankerError(f"{files.name}: {name} holds NaN or infinite weights; train again from a whole one")
    return model.eval()


def choose_device(device: str | None) -> str:
    """The device asked for, or the best one there is."""
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device!r}: torch {torch.__version__} finds no CUDA GPU here; use 'cpu'")
    return device


def choose_precision(precision: Precision, device: str) -> str:
    """What ``auto`` means on a device; a precision asked for is checked against it.

    bf16 without hardware for it is emulated and several times slower than fp32, so ``auto`` never picks it there.
    """
    on_cpu = device.startswith("cpu")
    if precision == "fp16" and on_cpu and "avx512_fp16" not in instruction_sets():
        raise ValueError("precision 'fp16': this CPU has no avx512_fp16; use 'auto', 'bf16' or 'fp32'")
    if precision != "auto":
        return precision
    if on_cpu:
        return "bf16" if cpu_has_bf16() else "fp32"
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "fp32"


def _head_in_float32(model: nn.Module) -> None:
    # A logit in bf16 has 8 bits: documents of a list would tie. The last layer is small, so it stays in fp32.
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features == 1:
            module.float()
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))
