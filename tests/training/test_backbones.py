"""Every family that the project names: trained, saved, and opened by the peers with the same scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from ranker.config import ScoringConfig, TrainConfig
from ranker.schemas import GROUPS, read_table
from ranker.scoring import load_scorer
from ranker.training.batches import write_group_file
from ranker.training.job import GROUP_FILE, WEIGHTS, Job
from ranker.training.loop import Place, Run

pytestmark = pytest.mark.usefixtures("one_worker_group")

WORDS = ["cat", "dog", "bird", "fish", "frog", "horse", "the", "is", "here", "and", "there", "where", "a"]
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 66, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Roberta": {"type_vocab_size": 1},
    "XLMRoberta": {"type_vocab_size": 1},
    "Deberta": {**DEBERTA, "type_vocab_size": 0},
    "DebertaV2": {**DEBERTA, "position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    "Electra": {"embedding_size": 16},
    "ModernBert": {"cls_token_id": 1, "sep_token_id": 2, "local_attention": 4},
    "Albert": {"embedding_size": 8},
    "MPNet": {},
    "DistilBert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
}
WITH_TYPES = ("Bert", "Electra", "Albert")
PAIRS = [("where is a cat", "the cat is here"), ("where is a dog", "the bird is here " * 20), ("a", "there")]


def save_tokenizer(folder: Path, with_types: bool) -> int:
    words = {word: number for number, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if with_types else [])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
        mask_token="[MASK]", model_input_names=names,
    ).save_pretrained(folder)  # fmt: skip
    return len(words)


@pytest.fixture
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The family's encoder without a head, random and seeded, as a folder."""
    family = request.param
    folder = tmp_path / family
    size = save_tokenizer(folder, family in WITH_TYPES)
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(vocab_size=size, **(SIZES | FAMILIES[family]))
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return str(folder)


def train(config: TrainConfig, animals: Path, work: Path) -> Path:
    work.mkdir()
    write_group_file(read_table(animals / "groups.parquet", GROUPS), work / GROUP_FILE)
    run = Run(Job(config, 13, work, (48,)), Place(0, 1, torch.device("cpu"), None, lambda metrics, folder: None))
    run.loop()
    run.finish()
    return work / WEIGHTS


def scores_of(folder: Path) -> np.ndarray:
    """As transformers itself computes them, a pair at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        inputs = [tokenizer(*pair, truncation=True, max_length=32, return_tensors="pt") for pair in PAIRS]
        return np.array([float(model(**each).logits) for each in inputs])


@pytest.mark.parametrize("backbone", FAMILIES, indirect=True)
def test_a_family_is_trained_saved_and_opened_by_the_peers(
    backbone: str, train_config: Callable[..., TrainConfig], animals: Path, tmp_path: Path
) -> None:
    # Large steps: the scores of a small random model would lie too close together to say anything of the saving.
    config = train_config(model=backbone, head_learning_rate=0.1, learning_rate=3e-3, length_window=2)
    folder = train(config, animals, tmp_path / "run")
    expected = scores_of(folder)
    assert np.ptp(expected) > 1e-3
    peer = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
    assert peer.predict(PAIRS) == pytest.approx(expected, abs=1e-5)
    ours = load_scorer(folder, ScoringConfig(engine="torch", precision="fp32"), "cpu")
    assert ours.score(PAIRS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("backbone", FAMILIES, indirect=True)
def test_adapters_of_a_family_are_merged_into_the_same_scores(
    backbone: str, train_config: Callable[..., TrainConfig], animals: Path, tmp_path: Path
) -> None:
    import peft

    config = train_config(
        model=backbone, head_learning_rate=0.1, lora={"enabled": True, "r": 4, "alpha": 8, "rslora": True}
    )
    folder = train(config, animals, tmp_path / "run")
    from ranker.training.model import load_model

    plain, tokenizer = load_model(config.model_copy(update={"lora": TrainConfig().lora}), 13)
    adapted = peft.PeftModel.from_pretrained(plain, folder / "adapter").eval()
    with torch.no_grad():
        found = [
            float(adapted(**tokenizer(*pair, truncation=True, max_length=32, return_tensors="pt")).logits)
            for pair in PAIRS
        ]
    assert found == pytest.approx(scores_of(folder), abs=1e-5)
