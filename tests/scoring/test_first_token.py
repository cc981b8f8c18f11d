"""The last layer for the first token alone changes no logit, in every family that has one."""

import numpy as np
import pytest
import torch
import transformers

from ranker.scoring.first_token import trim_last_layer

SMALL = {
    "vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 40, "num_labels": 1, "pad_token_id": 1, "embedding_size": 16,
}  # fmt: skip


def network(family: str, **more):
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(**{**SMALL, **more})
    return getattr(transformers, f"{family}ForSequenceClassification")(config).eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["Bert", "Roberta", "XLMRoberta", "Camembert", "Electra"])
def test_the_logits_stay_with_and_without_padding(family, attention):
    model = network(family, attn_implementation=attention)
    ids = torch.randint(3, 100, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    ids[1, 5:] = 1
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask).logits
        assert trim_last_layer(model) and "forward" in vars(model.base_model.encoder.layer[-1])
        np.testing.assert_allclose(model(input_ids=ids, attention_mask=mask).logits, expected, atol=1e-6)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_gradients_stay_with_and_without_padding(attention):
    # Weights so large that those of query and key have gradients worth the name.
    model = network("Bert", attn_implementation=attention, initializer_range=0.5)
    ids = torch.randint(3, 100, (3, 9), generator=torch.Generator().manual_seed(0))

    def gradients(mask):
        model.zero_grad()
        model(input_ids=ids, attention_mask=mask).logits.pow(2).sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    masks = [torch.ones_like(ids), torch.ones_like(ids)]
    masks[1][1, 5:] = 0
    before = [gradients(mask) for mask in masks]
    assert trim_last_layer(model)
    for mask, expected in zip(masks, before, strict=True):
        for own, whole in zip(gradients(mask), expected, strict=True):
            torch.testing.assert_close(own, whole, rtol=1e-3, atol=1e-5)


def test_a_family_of_another_build_stays_as_it_is():
    model = network("ModernBert", bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
    assert not trim_last_layer(model)


def test_a_head_that_reads_other_tokens_keeps_the_whole_layer():
    class MeanPooler(torch.nn.Module):
        def forward(self, states):
            return states.mean(1)

    model = network("Bert")
    model.bert.pooler = MeanPooler()
    last = model.bert.encoder.layer[-1]
    assert not trim_last_layer(model) and "forward" not in vars(last)
