import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from ranker.pretrained import ModelNotFoundError
from ranker.retrieval import encoder as module
from ranker.retrieval.encoder import Encoder, choose_precision

TEXTS = ["a dog barks", "cat", "", "a parrot repeats the words that it hears often when it is content in summer"]


def test_vectors_are_those_of_sentence_transformers_in_the_order_of_the_texts(tiny_retriever: str) -> None:
    encoder = Encoder(tiny_retriever, precision="fp32", device="cpu", batch_size=2)
    vectors = encoder.encode_documents(TEXTS)
    oracle = SentenceTransformer(tiny_retriever, device="cpu").encode(TEXTS, normalize_embeddings=True)
    assert vectors.dtype == np.float32 and vectors.shape == (4, encoder.dimension)
    np.testing.assert_allclose(vectors, oracle, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), vectors, atol=1e-5)


def test_bf16_is_within_a_hundredth_of_fp32(tiny_retriever: str) -> None:
    exact = Encoder(tiny_retriever, precision="fp32", device="cpu").encode_documents(TEXTS)
    fast = Encoder(tiny_retriever, precision="bf16", device="cpu").encode_documents(TEXTS)
    assert fast.dtype == np.float32
    assert (1 - (exact * fast).sum(axis=1)).max() < 1e-2
    np.testing.assert_allclose(np.linalg.norm(fast, axis=1), 1, atol=1e-6)


def test_no_texts_give_no_vectors(tiny_retriever: str) -> None:
    assert Encoder(tiny_retriever, device="cpu").encode_queries([]).shape == (0, 32)


def test_max_length_cuts_and_never_exceeds_what_the_model_can(tiny_retriever: str) -> None:
    short = Encoder(tiny_retriever, max_length=5, precision="fp32", device="cpu")
    np.testing.assert_allclose(
        short.encode_documents(["cat dog water morning"]), short.encode_documents(["cat dog water"]), atol=1e-6
    )
    assert Encoder(tiny_retriever, max_length=9999, device="cpu").max_length == 64


def test_prompts_of_the_model_are_used(tiny_retriever: str, tmp_path) -> None:
    model = SentenceTransformer(tiny_retriever, device="cpu", prompts={"query": "bird ", "document": "food "})
    model.save(str(tmp_path / "prompted"))
    prompted = Encoder(str(tmp_path / "prompted"), precision="fp32", device="cpu")
    plain = Encoder(tiny_retriever, precision="fp32", device="cpu")
    np.testing.assert_allclose(prompted.encode_queries(["cat"]), plain.encode_queries(["bird cat"]), atol=1e-5)
    np.testing.assert_allclose(prompted.encode_documents(["cat"]), plain.encode_documents(["food cat"]), atol=1e-5)


def test_the_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: True)
    assert choose_precision("auto", "cpu") == "bf16"
    monkeypatch.setattr(module, "cpu_has_bf16", lambda: False)
    assert choose_precision("auto", "cpu") == "fp32"
    assert choose_precision("bf16", "cpu") == "bf16"
    with pytest.raises(ValueError, match="'fp16' on a CPU"):
        choose_precision("fp16", "cpu")
    with pytest.raises(ValueError, match="'int8' is none of"):
        choose_precision("int8", "cpu")  # type: ignore[arg-type]


def test_a_folder_that_is_no_model_is_named(tmp_path) -> None:
    with pytest.raises(ModelNotFoundError, match="not a model folder"):
        Encoder(str(tmp_path))
