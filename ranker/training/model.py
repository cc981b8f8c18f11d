"""The cross-encoder that is trained: loading, dropout, a new head's first weights, adapters, parameter groups.

What builds a model is imported where it is used: a driver, and the process of a trial, only check one, and would take
seconds longer to start.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import is_flash_attn_2_available

from ranker.config import LoraConfig, TrainConfig
from ranker.pretrained import ModelNotFoundError, resolve
from ranker.registry import nearest
from ranker.scoring.first_token import trim_last_layer
from ranker.scoring.pairs import longest_pair

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

# Parameters of norms and biases are not decayed.
NO_DECAY = ("bias", "norm.weight", "layernorm.weight", "layer_norm.weight")


def load_model(train: TrainConfig, seed: int, attention: str | None = None) -> tuple[PreTrainedModel, Tokenizer]:
    """The backbone with a head of one output and the configured adapters, in fp32, and its tokenizer.

    The same arguments give the same weights, those of a new head included.

    Args:
        train: the section. seed: decides new weights. attention: as :func:`choose_attention` says.

    Raises:
        ModelNotFoundError: where there is no such model, or no network to get it. ValueError: on adapters that do
            not fit, a length the model has no positions for, or more than one output.
    """
    from transformers import AutoModelForSequenceClassification

    check_model(train)
    torch.manual_seed(seed)
    source = resolve(train.model)
    config = AutoConfig.from_pretrained(source, num_labels=train.num_labels)
    if train.dropout is not None:
        set_dropout(config, train.dropout)
    options = {"quantization_config": four_bits()} if train.lora.quantize else {}
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        source, config=config, attn_implementation=attention, dtype=torch.float32, output_loading_info=True, **options
    )
    if train.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    initialise_head(model, set(loading["missing_keys"]))
    if train.freeze_embeddings:
        freeze_embeddings(model)
    if train.dropout == 0.0 and not train.lora.quantize:
        trim_last_layer(model)  # a seventh less work for six layers
    return (add_adapters(model, train.lora) if train.lora.enabled else model), load_tokenizer(train)


def load_tokenizer(train: TrainConfig) -> Tokenizer:
    """The model's tokenizer without any truncation or padding that its file may carry; it cuts at ``max_length``."""
    tokenizer = AutoTokenizer.from_pretrained(resolve(train.model))
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    tokenizer.model_max_length = train.max_length  # CrossEncoder reads it: the saved model scores as it was trained
    return tokenizer


def check_model(train: TrainConfig) -> None:
    """Find out in the driver, in a second, what would fail in every worker.

    Raises:
        ModelNotFoundError, ValueError: as :func:`load_model`.
    """
    if train.num_labels != 1:
        raise ValueError(f"train.num_labels {train.num_labels}: the losses rank by one score; set it to 1")
    _check_quantize(train)
    source = resolve(train.model)
    try:
        config = AutoConfig.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"train.model {train.model!r}: no such model folder, and the hub did not give it ({_first_line(error)}); "
            f"name a saved model's folder, connect to the hub, or use the bundled 'all-MiniLM-L6-v2'"
        ) from error
    longest_pair(tokenizer, config, train.max_length)


def set_dropout(config: Any, rate: float) -> None:
    """Every dropout of a transformers configuration, whatever its family calls it, set to ``rate``.

    BERT and RoBERTa say ``hidden_dropout_prob``, ModernBERT ``mlp_dropout``, DeBERTa adds ``pooler_dropout``; the
    head's own (``classifier_dropout``, None for "as the backbone") is one of them.
    """
    for name, value in config.to_dict().items():
        if "dropout" in name and (name.startswith("classifier") or _is_rate(value)):
            setattr(config, name, rate)


def choose_attention(train: TrainConfig, device: str, arithmetic: str) -> str | None:
    """How attention is computed, in transformers' words; None is its own choice (SDPA where the model has it).

    ``auto`` leaves the padding out (flash_attention_2) where everything for it is there; on a CPU eager attention is
    the faster in a bf16 step, SDPA in fp32.
    """
    if train.attention != "auto":
        return train.attention
    if device == "cpu":
        return "eager" if arithmetic == "bf16" else None
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    config = AutoConfig.from_pretrained(resolve(train.model))
    kind = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    able = is_flash_attn_2_available() and getattr(kind, "_supports_flash_attn", False)
    return "flash_attention_2" if able and arithmetic != "fp32" else None


def four_bits() -> Any:
    """How QLoRA holds what is frozen: NF4 with double quantisation, computed in bf16."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _check_quantize(train: TrainConfig) -> None:
    if not train.lora.quantize:
        return
    if not train.lora.enabled:
        raise ValueError(
            "train.lora.quantize: only adapters can be trained on four-bit weights; set train.lora.enabled"
        )
    if not train.gpus_per_worker or find_spec("bitsandbytes") is None:
        raise ValueError(
            "train.lora.quantize: needs a GPU (train.gpus_per_worker) and the package bitsandbytes (pip install "
            "bitsandbytes); leave it out to train adapters on whole weights"
        )


def initialise_head(model: PreTrainedModel, new: set[str]) -> None:
    """First weights of what the backbone's folder did not hold (``new``: parameter names).

    They stay as transformers draws them, which ranks well after a few hundred groups at ten times the backbone's rate
    (``head_learning_rate``). This is the place for a warmer start.
    """
    if new:
        log.info("new weights: %s", ", ".join(sorted(new)))


def freeze_embeddings(model: PreTrainedModel) -> None:
    """Leave everything below the first layer as it is: tokens, positions and their norm."""
    embeddings = getattr(model.base_model, "embeddings", None) or model.get_input_embeddings()
    embeddings.requires_grad_(False)


def head_modules(model: PreTrainedModel) -> list[str]:
    """Names of the modules with weights that make the score from the encoder's output: classifier, pooler, dense."""
    outside = [
        name for name, child in model.named_children() if name != model.base_model_prefix and _has_weights(child)
    ]
    pooler = getattr(model.base_model, "pooler", None)
    inside = ["pooler"] if isinstance(pooler, nn.Module) and _has_weights(pooler) else []
    return [*outside, *(name for name in inside if name not in outside)]


def add_adapters(model: PreTrainedModel, lora: LoraConfig) -> PreTrainedModel:
    """The model with LoRA on its encoder; the whole head is trained beside it and saved.

    Raises:
        ValueError: where ``target_modules`` names no linear layer, listing those there are.
    """
    import peft

    head = head_modules(model)
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(part in head for part in name.split("."))
    ]
    if lora.target_modules != "auto":
        known = sorted({name.rpartition(".")[2] for name in linear})
        if wrong := [target for target in lora.target_modules if not _matches(target, linear)]:
            raise ValueError(f"train.lora.target_modules {wrong}: no such linear layer; {nearest(wrong[0], known)}")
        linear = [name for name in linear if any(_matches(target, [name]) for target in lora.target_modules)]
    options = peft.LoraConfig(
        task_type=peft.TaskType.SEQ_CLS,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=linear,
        modules_to_save=head,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
    )
    return peft.get_peft_model(model, options)  # type: ignore[return-value]


def merged(model: Any) -> PreTrainedModel:
    """The plain transformers model: adapters multiplied out and added to the weights they stand beside."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def parameter_groups(model: nn.Module, train: TrainConfig, head: list[str]) -> list[dict[str, Any]]:
    """AdamW's groups: backbone and head, each with and without decay; empty ones left out.

    Args:
        model: with or without adapters. train: the rates. head: module names as :func:`head_modules` gives them.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            in_head = any(part in head for part in name.split("."))
            decayed = not name.lower().endswith(NO_DECAY)
            groups.setdefault((in_head, decayed), []).append(parameter)
    rates = {False: train.learning_rate, True: train.head_learning_rate or train.learning_rate}
    return [
        {"params": members, "lr": rates[in_head], "weight_decay": train.weight_decay if decayed else 0.0}
        for (in_head, decayed), members in sorted(groups.items(), key=lambda item: item[0])
    ]


def _matches(target: str, names: list[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for name in names)


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _is_rate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
