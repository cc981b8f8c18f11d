import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, StaticEmbedding, Transformer

from ranker.pretrained import ModelNotFoundError
from ranker.retrieval import encoder as module
from ranker.retrieval.encoder import Encoder, choose_precision, plan_rows, used_columns

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


def test_a_batch_holds_texts_of_like_length_within_the_tokens() -> None:
    batches = [rows.tolist() for rows in plan_rows(torch.tensor([3, 9, 2, 4, 3, 0]), 9)]
    assert batches == [[1], [3, 0], [4, 2, 5]]  # 1 x 9, 2 x 4, 3 x 3
    assert [rows.tolist() for rows in plan_rows(torch.tensor([7, 5]), 4)] == [[0], [1]]
    assert list(plan_rows(torch.tensor([], dtype=torch.int64), 4)) == []


def test_padding_on_either_side_is_cut_off() -> None:
    assert used_columns(torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])) == slice(0, 3)
    assert used_columns(torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1]])) == slice(2, 4)
    assert used_columns(torch.zeros((2, 4))) == slice(0, 1)
    # With some of it kept, as far as there is any.
    right, left = torch.tensor([[1, 1, 1, 0, 0, 0]]), torch.tensor([[0, 0, 0, 1, 1, 1]])
    assert used_columns(right, 4) == slice(0, 4) and used_columns(left, 4) == slice(2, 6)
    assert used_columns(right, 2) == slice(0, 3) and used_columns(right, 16) == used_columns(left, 16) == slice(0, 6)


def test_many_texts_keep_their_order_over_batches_and_chunks(tiny_retriever: str, monkeypatch) -> None:
    texts = [" ".join(["dog", "cat", "bird"][n % 3] for n in range(size)) for size in (1, 60, 7, 7, 3, 90, 0, 20, 2, 5)]
    oracle = SentenceTransformer(tiny_retriever, device="cpu").encode(texts, normalize_embeddings=True)
    monkeypatch.setattr(module, "CHUNK", 4)
    monkeypatch.setattr(module, "CPU_TOKENS", 24)
    encoder = Encoder(tiny_retriever, precision="fp32", device="cpu")
    padded = []
    encoder._model.register_forward_pre_hook(lambda _, inputs: padded.append(inputs[0]["input_ids"].shape))
    np.testing.assert_allclose(encoder.encode_documents(texts), oracle, atol=1e-5)
    assert sum(rows for rows, _ in padded) == len(texts)
    assert all(rows * width <= 24 or rows == 1 for rows, width in padded)


@pytest.mark.parametrize("pooling", ["cls", "max", "mean"])
def test_any_modules_behind_the_backbone(tiny_backbone: str, tmp_path, pooling: str) -> None:
    torch.manual_seed(3)
    modules = [Transformer(tiny_backbone, max_seq_length=64), Pooling(32, pooling), Dense(32, 24), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path))
    encoder = Encoder(str(tmp_path), precision="fp32", device="cpu")
    oracle = SentenceTransformer(str(tmp_path), device="cpu").encode_document(TEXTS)
    assert encoder.dimension == 24
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), oracle, atol=1e-5)


def test_a_prompt_that_is_not_pooled_and_one_for_everything(tiny_backbone: str, tmp_path) -> None:
    modules = [Transformer(tiny_backbone, max_seq_length=64), Pooling(32, "mean", include_prompt=False)]
    prompts = {"passage": "food of a ", "usual": "bird "}
    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts, default_prompt_name="usual")
    model.save(str(tmp_path))
    encoder, oracle = Encoder(str(tmp_path), precision="fp32", device="cpu"), SentenceTransformer(str(tmp_path))
    for ours, theirs in (
        (encoder.encode_queries, oracle.encode_query),
        (encoder.encode_documents, oracle.encode_document),
    ):
        np.testing.assert_allclose(ours(TEXTS), theirs(TEXTS, normalize_embeddings=True), atol=1e-5)


def test_what_is_no_padded_text_is_left_to_sentence_transformers(tiny_backbone: str, tmp_path, monkeypatch) -> None:
    body = Transformer(tiny_backbone, max_seq_length=64)
    words = StaticEmbedding(body.tokenizer, embedding_dim=32)  # its texts lie end to end
    router = Router.for_query_document(query_modules=[words], document_modules=[body, Pooling(32, "mean")])
    SentenceTransformer(modules=[router], device="cpu").save(str(tmp_path))
    monkeypatch.setattr(module, "resolve", str)  # such a folder has no weights of its own
    encoder, oracle = Encoder(str(tmp_path), precision="fp32", device="cpu"), SentenceTransformer(str(tmp_path))
    for ours, theirs in (
        (encoder.encode_queries, oracle.encode_query),
        (encoder.encode_documents, oracle.encode_document),
    ):
        np.testing.assert_allclose(ours(TEXTS[:2]), theirs(TEXTS[:2], normalize_embeddings=True), atol=1e-5)
