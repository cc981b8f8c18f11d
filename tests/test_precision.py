"""A model that is lowered after loading is what loading in that type gives; torch's default type stays."""

from pathlib import Path

import pytest
import torch
import transformers

from ranker.precision import lower_precision
from ranker.retrieval.encoder import Encoder
from ranker.scoring.model_folder import find_model
from ranker.scoring.torch_engine import load_torch_engine

SMALL = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 40, "num_labels": 1, "pad_token_id": 1, "embedding_size": 32,
}  # fmt: skip
MODERN = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
IDS = torch.randint(3, 100, (3, 9), generator=torch.Generator().manual_seed(0))


def save(family: str, folder: Path) -> Path:
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(**SMALL, **(MODERN if "Modern" in family else {}))
    getattr(transformers, f"{family}ForSequenceClassification")(config).save_pretrained(folder)
    return folder


def load(folder: Path, dtype: torch.dtype):
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).eval()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["Bert", "XLMRoberta", "Electra", "DebertaV2", "ModernBert", "MPNet", "DistilBert"])
def test_it_is_what_loading_in_that_type_gives(family, dtype, tmp_path):
    folder = save(family, tmp_path)
    lowered, expected = load(folder, torch.float32), load(folder, dtype)
    lower_precision(lowered, dtype)
    for found, wanted in ((lowered.named_parameters(), expected.named_parameters()),
                          (lowered.named_buffers(), expected.named_buffers())):  # fmt: skip
        found, wanted = dict(found), dict(wanted)
        assert found.keys() == wanted.keys()
        assert {name for name in found if found[name].dtype != wanted[name].dtype} == set()
        assert [name for name in found if not torch.equal(found[name], wanted[name])] == []
    with torch.inference_mode():
        assert torch.equal(lowered(input_ids=IDS).logits, expected(input_ids=IDS).logits)


def test_what_transformers_keeps_in_fp32_by_name_stays():
    torch.manual_seed(3)
    config = transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    half, brain = transformers.T5EncoderModel(config), transformers.T5EncoderModel(config)
    lower_precision(half, torch.float16)
    lower_precision(brain, torch.bfloat16)
    kept = {name for name, weight in half.named_parameters() if weight.dtype == torch.float32}
    assert kept == {name for name, _ in half.named_parameters() if ".wo." in name} != set()
    assert {weight.dtype for weight in brain.parameters()} == {torch.bfloat16}
    assert half.shared.weight is half.encoder.embed_tokens.weight


def test_rotary_positions_of_a_reranker_in_bf16_are_not_rounded(tmp_path):
    files = find_model(save("ModernBert", tmp_path))
    exact = load_torch_engine(files, "fp32", "cpu").model
    lowered = load_torch_engine(files, "bf16", "cpu").model
    wanted = {name: buffer for name, buffer in exact.named_buffers() if "inv_freq" in name}
    found = dict(lowered.named_buffers())
    assert wanted and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_loading_never_changes_torchs_default_type(tiny_retriever, tiny_reranker, monkeypatch):
    """It is the whole process's: what another thread computes meanwhile would come out in it."""
    asked: list[torch.dtype] = []
    plain = torch.set_default_dtype
    monkeypatch.setattr(torch, "set_default_dtype", lambda dtype: (asked.append(dtype), plain(dtype)))
    Encoder(tiny_retriever, precision="bf16", device="cpu")
    load_torch_engine(find_model(tiny_reranker), "bf16", "cpu")
    assert asked and set(asked) == {torch.float32}
