"""The scorer says what CrossEncoder says, in the order given, and refuses what is no reranker."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ranker.config import ScoringConfig
from ranker.pretrained import ModelNotFoundError
from ranker.scoring import load_scorer, probabilities
from ranker.scoring.model_folder import NotARerankerError
from ranker.scoring.torch_engine import choose_device, choose_precision

FP32 = ScoringConfig(precision="fp32")
LONG = "the cat sleeps all day and the dog does not " * 20
PAIRS = [
    ("how long does a cat sleep", "cats sleep for most of the day"),
    ("how long does a cat sleep", LONG),
    ("dog", ""),
    ("", "a parrot"),
    (LONG, LONG),
    ("Größe?", "12 kg, ~3 €"),
]


@pytest.fixture(scope="module")
def oracle(tiny_reranker):
    from sentence_transformers import CrossEncoder
    from torch import nn

    model = CrossEncoder(tiny_reranker, device="cpu")
    return lambda pairs: model.predict(pairs, activation_fn=nn.Identity(), show_progress_bar=False)


@pytest.mark.parametrize("budget", [1, 100, 8192])
def test_logits_equal_those_of_cross_encoder_whatever_the_batches(tiny_reranker, oracle, budget):
    scorer = load_scorer(tiny_reranker, ScoringConfig(precision="fp32", batch_tokens=budget), device="cpu")
    scores = scorer.score(PAIRS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, oracle(PAIRS), atol=1e-5)


def test_the_window_does_not_show(tiny_reranker, monkeypatch):
    scorer = load_scorer(tiny_reranker, FP32, device="cpu")
    whole = scorer.score(PAIRS)
    monkeypatch.setattr("ranker.scoring.scorer.WINDOW", 2)
    np.testing.assert_allclose(scorer.score(PAIRS), whole, atol=1e-6)


def test_a_shorter_length_cuts_as_cross_encoder_does(tiny_reranker):
    from sentence_transformers import CrossEncoder
    from torch import nn

    peer = CrossEncoder(tiny_reranker, device="cpu", max_length=20)
    scorer = load_scorer(tiny_reranker, ScoringConfig(precision="fp32", max_length=20), device="cpu")
    np.testing.assert_allclose(scorer.score(PAIRS), peer.predict(PAIRS, activation_fn=nn.Identity()), atol=1e-5)


def test_rank_is_best_first_and_keeps_the_order_of_ties(tiny_reranker):
    scorer = load_scorer(tiny_reranker, FP32, device="cpu")
    documents = ["a dog", "a cat", "a dog", "a parrot", "a dog"]
    scores = scorer.score([("pet", document) for document in documents])
    ranked = scorer.rank("pet", documents)
    assert [score for _, score in ranked] == sorted(scores.tolist(), reverse=True)
    assert [position for position, _ in ranked if documents[position] == "a dog"] == [0, 2, 4]
    assert scorer.rank("pet", documents, top_k=2) == ranked[:2]
    assert scorer.rank("pet", []) == []


def test_bf16_stays_near_fp32_and_its_logits_do_not_tie(tiny_reranker):
    pairs = [("cat", f"a cat of {weight} kg sleeps {hours} hours") for weight in range(8) for hours in range(8)]
    exact = load_scorer(tiny_reranker, FP32, device="cpu").score(pairs)
    rough = load_scorer(tiny_reranker, ScoringConfig(precision="bf16"), device="cpu").score(pairs)
    np.testing.assert_allclose(rough, exact, atol=0.15)
    # A head in bf16 would leave about 8 bits a logit; the head in fp32 keeps apart what the body tells apart.
    representable = rough.view(np.uint32) & 0xFFFF
    assert np.count_nonzero(representable) > 0.9 * len(pairs)


def test_probabilities_are_a_sigmoid_in_float64_without_overflow_or_ties():
    logits = np.array([0.0, 20.0, 20.000002, -800.0], dtype=np.float32)
    found = probabilities(logits)
    assert found.dtype == np.float64
    assert found[0] == 0.5 and found[1] < found[2] < 1.0 and found[3] >= 0.0
    assert probabilities([1.0])[0] == pytest.approx(0.7310585786300049, abs=1e-15)


def test_a_lone_surrogate_and_a_long_document_are_read(tiny_reranker):
    scorer = load_scorer(tiny_reranker, FP32, device="cpu")
    broken, long = scorer.score([("cat", "a \ud800 cat"), ("cat", "cat food " * 500_000)])
    replaced, short = scorer.score([("cat", "a \ufffd cat"), ("cat", "cat food " * 60)])
    assert broken == pytest.approx(replaced, abs=1e-6) and long == pytest.approx(short, abs=1e-6)


def copy_with(folder: str, target: Path, change) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    change(config)
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_two_labels_are_refused(tiny_reranker, tmp_path):
    folder = copy_with(tiny_reranker, tmp_path / "two", lambda config: config.update(id2label={"0": "no", "1": "yes"}))
    with pytest.raises(NotARerankerError, match=r"two: gives 2 labels a pair; a reranker gives one"):
        load_scorer(folder, FP32)


def test_a_backbone_is_refused(tiny_backbone):
    with pytest.raises(NotARerankerError, match="BertModel, a backbone without a trained classification head"):
        load_scorer(tiny_backbone)


def test_a_folder_that_lacks_its_head_is_refused(tiny_reranker, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = copy_with(tiny_reranker, tmp_path / "headless", lambda config: None)
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotARerankerError, match=r"lack classifier\.bias, classifier\.weight"):
        load_scorer(folder)


def test_nan_weights_are_refused_by_name(tiny_reranker, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = copy_with(tiny_reranker, tmp_path / "nan", lambda config: None)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"][0, 3] = np.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotARerankerError, match=r"nan: classifier\.weight holds NaN"):
        load_scorer(folder)


def test_a_folder_that_is_no_model_and_one_that_is_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        load_scorer(tmp_path / "empty")
    with pytest.raises(ModelNotFoundError, match="no such model folder"):
        load_scorer(tmp_path / "absent")


def test_an_onnx_file_that_is_none_is_refused(tiny_reranker, tmp_path):
    folder = copy_with(tiny_reranker, tmp_path / "broken", lambda config: None)
    (folder / "model.onnx").write_text("not a graph")
    with pytest.raises(NotARerankerError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        load_scorer(folder, ScoringConfig(engine="onnx"))


def test_bad_settings_are_refused_with_the_allowed_ones(tiny_reranker):
    with pytest.raises(ValueError, match=r"max_length 65: this model takes 5 to 64 tokens"):
        load_scorer(tiny_reranker, ScoringConfig(max_length=65))
    with pytest.raises(ValueError, match=r"engine 'onnx': .*tiny-reranker has no model\.onnx; export it first"):
        load_scorer(tiny_reranker, ScoringConfig(engine="onnx"))
    with pytest.raises(TypeError, match=r"pair 1 is \('cat', None\)"):
        load_scorer(tiny_reranker, FP32).score([("cat", "dog"), ("cat", None)])


def test_auto_precision_follows_the_processor(monkeypatch):
    for sets, expected in ((("avx2", "avx512_bf16"), "bf16"), (("avx2",), "fp32")):
        monkeypatch.setattr("ranker.machine.instruction_sets", lambda sets=sets: sets)
        assert choose_precision("auto", "cpu") == expected
    monkeypatch.setattr("ranker.scoring.torch_engine.instruction_sets", lambda: ("avx2",))
    with pytest.raises(ValueError, match="no avx512_fp16"):
        choose_precision("fp16", "cpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device(None) == "cpu"
    with pytest.raises(ValueError, match="finds no CUDA GPU"):
        choose_device("cuda:1")


def test_lora_adapters_are_merged(tiny_backbone, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(5)
    base = AutoModelForSequenceClassification.from_pretrained(tiny_backbone, num_labels=1)
    options = LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["classifier"], task_type="SEQ_CLS")
    model = get_peft_model(base, options).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    batch = tokenizer("cat", "dog", return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).logits.item()
    found = load_scorer(tmp_path / "adapter", FP32, device="cpu").score([("cat", "dog")])
    assert found[0] == pytest.approx(expected, abs=1e-5)
