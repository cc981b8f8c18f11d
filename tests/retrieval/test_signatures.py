import random

import numpy as np
import pytest

from ranker.retrieval.signatures import SIGNATURE_BYTES, hash_texts, likeness, sign_texts

TEXT = "the quick brown fox jumps over the lazy dog and runs away into the deep dark forest at night"


def like(one: str, other: str) -> float:
    first, second = sign_texts([one, other])
    return float(likeness(first, second))


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[n : n + 3]) for n in range(len(words) - 2)}


def test_case_punctuation_and_white_space_do_not_count_but_the_hash_sees_them() -> None:
    other = "  The quick, brown FOX jumps over the lazy dog!\nAnd runs away into the deep (dark) forest at night. "
    assert like(TEXT, other) == 1.0
    assert len(set(hash_texts([TEXT, other, TEXT]).tolist())) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TEXT, "a cat purrs on the sofa of my aunt"),
        ("", TEXT),
        ("fox", "dog"),
        ("a fox", "fox a"),
        ("寿司を食べる", "天気がいい"),
    ],
)
def test_other_texts_are_not_alike(one: str, other: str) -> None:
    assert like(one, other) < 0.05


@pytest.mark.parametrize("text", ["", "fox", "a fox", "three short words", "寿司を食べる", "Ünïcode straße"])
def test_a_text_is_like_itself_however_short(text: str) -> None:
    assert like(text, text) == 1.0


def test_scripts_without_spaces_are_compared_letter_by_letter() -> None:
    assert 0.4 < like("私は寿司を食べるのが好きです", "私は寿司を食べるのが嫌いです") < 0.95


def test_the_estimate_is_the_share_of_common_trigrams() -> None:
    rng = random.Random(0)
    errors = []
    for _ in range(200):
        words = [f"w{rng.randrange(5000)}" for _ in range(60)]
        changed = [f"z{rng.random()}".replace(".", "") if rng.random() < 0.04 else word for word in words]
        one, other = " ".join(words), " ".join(changed)
        both, either = trigrams(one) & trigrams(other), trigrams(one) | trigrams(other)
        errors.append(like(one, other) - len(both) / len(either))
    assert abs(np.mean(errors)) < 0.01 and np.std(errors) < 0.05


def test_a_text_has_the_same_signature_whatever_stands_beside_it() -> None:
    alone, together = sign_texts([TEXT]), sign_texts(["x", TEXT, "", "a b c d"])
    assert (alone[0] == together[1]).all() and together.shape == (4, SIGNATURE_BYTES)
    assert sign_texts([]).shape == (0, SIGNATURE_BYTES)
