"""Every family that the project names can be exported, padding and lengths other than the example's included."""

import numpy as np
import pytest
import torch
import transformers

from ranker.scoring.graph import write_graph
from ranker.scoring.onnx_engine import OnnxEngine
from ranker.scoring.torch_engine import TorchEngine

SMALL = {
    "vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 40, "num_labels": 1, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = {
    "Bert": {},
    "Roberta": {},
    "DebertaV2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    "ModernBert": {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_scores_the_same_in_onnx(family, tmp_path):
    config = getattr(transformers, f"{family}Config")(**SMALL, **FAMILIES[family])
    torch.manual_seed(3)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    rng = np.random.default_rng(0)

    def batch(rows: int, tokens: int) -> dict[str, np.ndarray]:
        mask = np.ones((rows, tokens), dtype=np.int64)
        mask[-1, tokens // 2 + 1 :] = 0
        return {"input_ids": rng.integers(3, 100, (rows, tokens)) * mask, "attention_mask": mask}

    write_graph(model, batch(2, 7), tmp_path / "model.onnx")
    onnx, reference = OnnxEngine(tmp_path / "model.onnx"), TorchEngine(model, "fp32", "cpu")
    for rows, tokens in ((1, 4), (2, 33), (5, 12)):
        example = batch(rows, tokens)
        np.testing.assert_allclose(onnx.logits(example), reference.logits(example), atol=1e-5)
