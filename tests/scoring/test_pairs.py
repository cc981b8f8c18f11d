"""The tokenisation is the library's, also where a long text is cut before it is tokenised."""

import random
import time

import pytest
from transformers import AutoTokenizer, BertConfig, PreTrainedTokenizerFast, RobertaConfig

from ranker.scoring.pairs import encode_pairs, encode_passages, longest_pair, readable, without_surrogates
from ranker.scoring.template import pair_template


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


def test_one_tokenisation_a_text_gives_the_ids_of_the_plain_call(tokenizer):
    draw = random.Random(0)
    words = ["cat", "dog", "xyzzy", "[SEP]", "猫", "é", "12", "¿"]
    for _ in range(200):
        query, document = (" ".join(draw.choices(words, k=draw.randrange(30))) for _ in range(2))
        length = draw.randrange(5, 40)
        expected = tokenizer([query], [document], truncation="longest_first", max_length=length)
        found = encode_pairs(tokenizer, [(query, document)], length)
        assert {name: found[name] for name in found} == {name: expected[name] for name in expected}


def roberta_like():
    """A tokenizer with two tokens between the texts, no type ids and its prefix space."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<s>", "<pad>", "</s>", "<unk>", "Ġcat", "Ġdog"]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", cls_token="<s>", sep_token="</s>",
        model_max_length=32, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def test_other_special_tokens_are_learned_from_the_tokenizer():
    tokenizer = roberta_like()
    template = pair_template(tokenizer)
    assert template is not None and (template.prefix, template.middle, template.suffix) == ((0,), (2, 2), (2,))
    for query, document, length in (("cat", "dog cat", 32), ("cat dog " * 9, "dog", 12), ("", "", 12)):
        expected = tokenizer([query], [document], truncation="longest_first", max_length=length)["input_ids"]
        assert encode_pairs(tokenizer, [(query, document)], length)["input_ids"] == expected
    tokenizer = roberta_like()
    tokenizer.truncation_side = "left"  # cut by the library alone
    assert pair_template(tokenizer) is None
    expected = tokenizer(["cat"], ["dog " * 40], truncation="longest_first", max_length=12)["input_ids"]
    assert encode_pairs(tokenizer, [("cat", "dog " * 40)], 12)["input_ids"] == expected


def test_without_a_template_the_tokenizer_itself_cuts_and_the_lengths_are_the_same(tokenizer, monkeypatch):
    texts = [("cat", "dog " * 40), ("cat", "dog " * 8), ("cat", "dog " * 9), ("", "")]
    expected = encode_passages(tokenizer, texts, 12, 1)
    monkeypatch.setattr("ranker.scoring.pairs.pair_template", lambda _: None)
    found = encode_passages(tokenizer, texts, 12, 1)
    assert dict(found.columns) == dict(expected.columns) and found[1:] == expected[1:]
    assert found.lengths == [44, 12, 13, 3]


def test_a_long_document_is_read_in_passages_that_follow_each_other(tokenizer):
    words = [f"{number}" for number in range(10, 30)]
    encoded, owners, lengths = encode_passages(
        tokenizer, [("cat", " ".join(words)), ("dog", "cat")], 12, max_passages=3
    )
    rows = [" ".join(tokenizer.convert_ids_to_tokens(ids)).replace(" ##", "") for ids in encoded["input_ids"]]
    # 12 less three special tokens and the query leave 8 tokens; a number has two.
    assert rows[0].startswith("[CLS] cat [SEP] 10 11 12 13") and rows[1].startswith("[CLS] cat [SEP] 14 15 16 17")
    assert owners == [0, 0, 0, 1] and rows[3] == "[CLS] dog [SEP] cat [SEP]"
    assert [len(ids) for ids in encoded["input_ids"]][:3] == [12, 12, 12]
    assert lengths == [3 + 1 + 2 * len(words), 5], "before they were cut"
    cut, _, _ = encode_passages(tokenizer, [("cat", " ".join(words))], 12, max_passages=1)
    assert cut["input_ids"] == encode_pairs(tokenizer, [("cat", " ".join(words))], 12)["input_ids"]


def test_ten_megabytes_are_read_in_a_moment(tokenizer):
    begin = time.process_time()
    for text in ("x" * 10_000_000, "猫" * 10_000_000, "cat food " * 1_100_000, "\ud800" * 10_000_000):
        assert len(encode_pairs(tokenizer, [("dog", text)], 32)["input_ids"][0]) <= 32
    assert time.process_time() - begin < 10
