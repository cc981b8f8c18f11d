"""The model card: what a stranger needs to know of a trained folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ranker.config import Experiment

_TEXT = """---
{front}---

# {name}

A cross-encoder that scores how well a text answers a query: one logit a pair, higher is better. Fine-tuned from
`{base}` with the package `ranker`.

```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("{folder}")
scores = model.predict([("a query", "a text"), ("a query", "another text")])
```

## Data

{data}

## Recipe

| setting | value |
|---|---|
{recipe}

## Results

{results}

## Lineage

| input | fingerprint |
|---|---|
{lineage}

Pairs are cut to {max_length} tokens, the longer side first. The scores order the texts of one query; they are no
probabilities that hold between queries. Measure on your own queries before you rely on it.
"""

_RECIPE = (
    "loss", "loss_options", "target", "in_batch_negatives", "average_start", "epochs", "batch_size", "group_size",
    "length_window", "max_length", "learning_rate", "head_learning_rate",
    "warmup_ratio", "schedule", "weight_decay", "max_grad_norm", "dropout", "num_workers",
)  # fmt: skip


def model_card(config: Experiment, counts: Sequence[int], outcome: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """README.md of a model folder, with the front matter that the hub reads.

    Args:
        config: the experiment. counts: training queries of the groups and of each mix. outcome: of the stage.
        inputs: input name -> fingerprint.
    """
    train = config.train
    front = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "text-ranking",
        "base_model": train.model,
        "tags": ["cross-encoder", "reranker", "sentence-transformers", "ranker"],
    }
    recipe = {name: getattr(train, name) for name in _RECIPE} | {
        "seed": config.seed,
        "ZeRO stage": train.deepspeed.stage,
    }
    if train.distill.weight:
        recipe["distillation"] = f"{train.distill.loss}, weight {train.distill.weight}, scores x {train.distill.scale}"
    if train.lora.enabled:
        recipe["LoRA"] = f"r {train.lora.r}, alpha {train.lora.alpha}, merged into the weights"
    return _TEXT.format(
        front=yaml.safe_dump(front, sort_keys=False),
        name=config.name,
        base=train.model,
        folder=config.folder("train").name,
        data=_data(config, counts, outcome),
        recipe=_rows(recipe),
        results=_results(outcome),
        lineage=_rows(inputs),
        max_length=train.max_length,
    )


def _data(config: Experiment, counts: Sequence[int], outcome: Mapping[str, Any]) -> str:
    mixes = "".join(
        f" {mix.share:.0%} of every batch are of {count} further ones ({Path(mix.groups).name})."
        for mix, count in zip(config.train.mix, counts[1:], strict=True)
    )
    seen = f"{outcome['pairs']} pairs seen in {outcome['steps']} steps"
    return f"{counts[0]} queries with their documents, {seen}.{mixes}"


def _results(outcome: Mapping[str, Any]) -> str:
    if not outcome["dev"]:
        return "Not measured in training: there were no dev queries."
    before = outcome.get("dev_retriever", {})
    lines = [
        f"| {name} | {before.get(name, float('nan')):.4f} | {value:.4f} |" for name, value in outcome["dev"].items()
    ]
    head = "Dev queries, the retriever's candidates in its order and in the model's:\n\n"
    return head + "| measure | retriever | reranked |\n|---|---|---|\n" + "\n".join(lines)


def _rows(values: Mapping[str, Any]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in values.items() if value not in (None, {}))
