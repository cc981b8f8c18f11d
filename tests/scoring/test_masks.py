"""The mask made once gives the logits of the mask made by the model."""

import numpy as np
import pytest
import torch

from ranker.scoring.masks import additive_mask, takes_additive_mask
from ranker.scoring.torch_engine import TorchEngine
from tests.scoring.test_first_token import network


def batch() -> dict[str, np.ndarray]:
    ids = torch.randint(3, 100, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    ids[1, 5:] = 1
    return {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}


@pytest.mark.parametrize("family", ["Bert", "Roberta", "XLMRoberta", "Camembert", "Electra"])
def test_the_logits_are_those_of_the_plain_mask(family):
    model = network(family)
    assert takes_additive_mask(model)
    plain, additive = (TorchEngine(model, "fp32", "cpu", additive=choice) for choice in (False, True))
    np.testing.assert_allclose(additive.logits(batch()), plain.logits(batch()), atol=1e-5)
    whole = {name: column[:1] for name, column in batch().items()}
    np.testing.assert_allclose(additive.logits(whole), plain.logits(whole), atol=1e-5)


def test_padding_is_least_and_no_padding_is_no_mask():
    found = additive_mask(torch.tensor([[1, 1, 0], [1, 1, 1]]), torch.bfloat16)
    assert found is not None and found.shape == (2, 1, 3, 3) and found.dtype == torch.bfloat16
    assert found[0, 0].eq(0).tolist() == 3 * [[True, True, False]] and found[0].min() == torch.finfo(found.dtype).min
    assert additive_mask(torch.ones(2, 3, dtype=torch.int64), torch.float32) is None


def test_other_builds_keep_their_own_mask():
    assert not takes_additive_mask(network("Bert", attn_implementation="eager"))
    more = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    assert not takes_additive_mask(network("ModernBert", **more))
