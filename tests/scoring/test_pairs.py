"""The tokenisation is the library's, also where a long text is cut before it is tokenised."""

import pytest
from transformers import AutoTokenizer, BertConfig, RobertaConfig

from ranker.scoring.pairs import encode_pairs, longest_pair, readable, without_surrogates


@pytest.fixture(scope="module")
def tokenizer(tiny_reranker):
    return AutoTokenizer.from_pretrained(tiny_reranker)


@pytest.mark.parametrize("pair", [
    ("cat", "a dog"), ("", ""), ("cat " * 40, "dog " * 9), ("cat " * 40, "dog " * 40), ("dog", "a cat; " * 4000),
    ("dog", "x" * 3000), ("dog", " \n" * 3000 + "cat"), ("dog " * 2000, "cat"), ("¿qué?", "año " * 900),
])  # fmt: skip
def test_ids_are_those_of_the_plain_call(tokenizer, pair):
    expected = tokenizer([pair[0]], [pair[1]], truncation="longest_first", max_length=32)
    found = encode_pairs(tokenizer, [pair], 32)
    assert {name: found[name] for name in found} == {name: expected[name] for name in expected}


def test_a_long_text_is_cut_at_a_space_and_one_without_spaces_is_not():
    assert len(readable("cat food " * 10_000, 32)) <= 16 * 32
    assert readable("cat food " * 10_000, 32).split()[-1] in ("cat", "food")
    assert readable("猫" * 1000, 32) == "猫" * 1000


def test_surrogates_are_joined_or_replaced():
    assert without_surrogates("a \ud83d\ude00 \ud800") == "a 😀 �"
    assert without_surrogates("año") == "año"


def test_no_pairs_are_no_rows(tokenizer):
    assert encode_pairs(tokenizer, [], 32)["input_ids"] == []


def test_the_length_is_bounded_by_the_positions(tokenizer):
    assert longest_pair(tokenizer, BertConfig(max_position_embeddings=48)) == 48
    assert longest_pair(tokenizer, BertConfig(max_position_embeddings=512)) == 64
    # RoBERTa's positions start behind its padding id: 50 rows are 48 tokens.
    assert longest_pair(tokenizer, RobertaConfig(max_position_embeddings=50, pad_token_id=1)) == 48
