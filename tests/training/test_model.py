from collections.abc import Callable

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
)

from ranker.config import LoraConfig, TrainConfig
from ranker.pretrained import ModelNotFoundError
from ranker.training.model import check_model, head_modules, load_model, parameter_groups, set_dropout

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
FAMILIES = {
    "bert": (BertConfig(**SIZES), ["classifier", "pooler"]),
    "roberta": (RobertaConfig(**SIZES), ["classifier"]),
    "deberta": (DebertaV2Config(**SIZES), ["pooler", "classifier"]),
    "modernbert": (ModernBertConfig(**SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1,
                                    sep_token_id=2), ["head", "classifier"]),
}  # fmt: skip
Section = Callable[..., TrainConfig]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_dropout_and_head_of_each_family(family: str) -> None:
    config: PretrainedConfig = FAMILIES[family][0]
    config.num_labels = 1
    set_dropout(config, 0.25)
    model = AutoModelForSequenceClassification.from_config(config)
    rates = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates and set(rates) == {0.25}
    assert head_modules(model) == FAMILIES[family][1]


def test_the_same_seed_draws_the_same_head(train_config: Section) -> None:
    one, same, other = (load_model(train_config(), seed)[0].classifier.weight for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_a_dropout_of_none_is_as_the_folder_says(train_config: Section) -> None:
    assert load_model(train_config(dropout=None), 1)[0].config.hidden_dropout_prob == 0.1
    assert load_model(train_config(), 1)[0].config.hidden_dropout_prob == 0.0


def test_biases_and_norms_are_not_decayed_and_the_head_has_its_rate(train_config: Section) -> None:
    config = train_config(learning_rate=1e-5, head_learning_rate=1e-3, weight_decay=0.01)
    model, _ = load_model(config, 1)
    groups = parameter_groups(model, config, head_modules(model))
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {named[id(member)]: (group["lr"], group["weight_decay"]) for group in groups for member in group["params"]}
    assert rates.keys() == {name for name, _ in model.named_parameters()}
    assert rates["classifier.weight"] == rates["bert.pooler.dense.weight"] == (1e-3, 0.01)
    assert rates["bert.encoder.layer.0.output.LayerNorm.weight"] == (1e-5, 0.0)
    assert rates["bert.encoder.layer.0.output.dense.weight"] == (1e-5, 0.01)


def test_adapters_leave_the_head_to_be_trained_whole(train_config: Section) -> None:
    model, _ = load_model(train_config(lora=LoraConfig(enabled=True, target_modules=("query", "value"))), 1)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".lora_A")[0].rpartition(".")[2] for name in trained if "lora_A" in name} == {"query", "value"}
    assert sum("classifier" in name or "pooler" in name for name in trained) == 4
    assert all("lora" in name or "modules_to_save" in name for name in trained)


def test_what_cannot_be_trained_is_named(train_config: Section) -> None:
    with pytest.raises(ValueError, match=r"target_modules \['qeury'\].*did you mean 'query'"):
        load_model(train_config(lora=LoraConfig(enabled=True, target_modules=("qeury",))), 1)
    with pytest.raises(ValueError, match="max_length 900"):
        check_model(train_config(max_length=900))
    with pytest.raises(ValueError, match=r"num_labels 2"):
        check_model(train_config(num_labels=2))
    with pytest.raises(ModelNotFoundError, match="no such model folder"):
        check_model(train_config(model="./nowhere"))


def test_the_last_layer_works_for_the_first_token_alone_and_learns_the_same(tiny_reranker, monkeypatch) -> None:
    train = TrainConfig(model=tiny_reranker, max_length=32)
    trimmed, _ = load_model(train, seed=0)
    monkeypatch.setattr("ranker.training.model.trim_last_layer", lambda model: False)
    whole, _ = load_model(train, seed=0)
    assert "forward" in vars(trimmed.bert.encoder.layer[-1]) and "forward" not in vars(whole.bert.encoder.layer[-1])
    ids = torch.arange(5, 35).reshape(2, 15)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    for model in (trimmed, whole):
        model(input_ids=ids, attention_mask=mask).logits.square().sum().backward()
    assert list(trimmed.state_dict()) == list(whole.state_dict())
    for (name, one), other in zip(trimmed.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
    with_dropout, _ = load_model(TrainConfig(model=tiny_reranker, max_length=32, dropout=0.1), seed=0)
    assert "forward" not in vars(with_dropout.bert.encoder.layer[-1]), "dropout of attention weights would be left out"
