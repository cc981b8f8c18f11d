"""Packed weights compute what plain ones compute, and a model for which they do not is left as it was."""

import os

import psutil
import pytest
import torch
import transformers
from torch import nn

from ranker.torch_on_cpu import give_back_freed_blocks, keep_freed_blocks, pack_linear_layers


def _packs() -> bool:
    try:
        torch.ops.mkldnn._reorder_linear_weight(torch.zeros(8, 8, dtype=torch.bfloat16), 8)
    except (AttributeError, RuntimeError):
        return False
    return True


can_pack = pytest.mark.skipif(not _packs(), reason="this processor or this torch packs no bf16 weights")

SMALL = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 40, "num_labels": 1, "pad_token_id": 1, "embedding_size": 32,
}  # fmt: skip
IDS = torch.randint(3, 100, (3, 9), generator=torch.Generator().manual_seed(0))


def network(family: str) -> nn.Module:
    torch.manual_seed(3)
    more = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2} if "Modern" in family else {}
    config = getattr(transformers, f"{family}Config")(**SMALL, **more)
    return getattr(transformers, f"{family}ForSequenceClassification")(config).eval().bfloat16()


@can_pack
@pytest.mark.parametrize("family", ["Bert", "XLMRoberta", "Electra", "DebertaV2", "ModernBert", "MPNet", "DistilBert"])
def test_every_family_gives_the_same_logits(family):
    model = network(family)
    count = sum(type(module) is nn.Linear for module in model.modules())
    weights = sum(weight.numel() for weight in model.parameters())
    with torch.inference_mode():
        expected = model(input_ids=IDS).logits.float()
        assert pack_linear_layers(model, lambda: model(input_ids=IDS).logits)
        packed = [module for module in model.modules() if "forward" in vars(module)]
        assert len(packed) == count
        torch.testing.assert_close(model(input_ids=IDS).logits.float(), expected, rtol=0.03, atol=0.01)
    # The plain weights are gone.
    assert sum(weight.numel() for weight in model.parameters()) < weights / 2


def test_a_model_that_reads_its_weights_itself_is_left_as_it_was():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, states):
            return self.outer(nn.functional.linear(states, self.inner.weight, self.inner.bias))

    model, states = Own().bfloat16(), torch.ones(2, 8, dtype=torch.bfloat16)
    expected = model(states)
    assert not pack_linear_layers(model, lambda: model(states))
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(model(states), expected)


@can_pack
def test_an_output_that_changes_by_more_than_rounding_is_refused(caplog):
    layer, calls = nn.Linear(8, 8).bfloat16(), []

    def probe() -> torch.Tensor:
        calls.append(1)
        return layer(torch.ones(1, 8, dtype=torch.bfloat16)) + len(calls)

    with caplog.at_level("INFO"):
        assert not pack_linear_layers(layer, probe)
    assert "an output changes by 1" in caplog.text and layer.weight.shape == (8, 8)


def test_a_model_that_refuses_the_probe_is_left_as_it_was(caplog):
    layer = nn.Linear(8, 8).bfloat16()

    def probe() -> torch.Tensor:
        raise ValueError("Each example must contain at least one <eos> token")

    with caplog.at_level("INFO"):
        assert not pack_linear_layers(layer, probe)
    assert "at least one <eos>" in caplog.text and layer.weight.shape == (8, 8)


def test_layers_in_fp32_and_layers_with_a_forward_of_their_own_stay():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8).bfloat16())
    model[1].forward = lambda states: states.bfloat16()
    assert not pack_linear_layers(model, lambda: model(torch.ones(1, 8)))
    assert model[0].weight.shape == model[1].weight.shape == (8, 8)


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="glibc"
)
def test_what_a_load_has_freed_goes_back_to_the_system():
    keep_freed_blocks()
    blocks = [torch.ones(2**21) for _ in range(32)]  # 8 MiB each
    del blocks[:-1]  # what stays lies above them, or all would go back by itself
    before = psutil.Process().memory_info().rss
    give_back_freed_blocks()
    assert before - psutil.Process().memory_info().rss > 100 * 2**20
