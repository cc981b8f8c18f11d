"""What tells that two texts are the same, or nearly: a hash of the text, and min-hashes of its word trigrams.

Both are made once, when a document is embedded, and answer later without its text.
"""

import re
from collections.abc import Sequence
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Signatures = NDArray[np.uint8]

# Min-hashes a text, one byte each: the share of equal ones is off from the true likeness by 0.035 (standard error at
# a likeness of 0.8).
SIGNATURE_BYTES = 128
SHINGLE = 3
# Scripts without spaces count by the letter.
_LETTER = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_LETTER}]|[^\W{_LETTER}]+")
_KEY = "ranker signature"
# Odd multipliers of multiply-shift hashing (Dietzfelbinger et al., 1997), the same in every process.
_RNG = np.random.default_rng(20260101)
_MULTIPLIERS = _RNG.integers(2**31, size=SIGNATURE_BYTES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_PLACES: Hashes = _RNG.integers(2**63, size=SHINGLE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def hash_texts(texts: Sequence[str]) -> Hashes:
    """A 64-bit hash (SipHash) of each text, the same in every process.

    Of ten million different texts two have the same hash in one of 400,000 collections.
    """
    return pd.util.hash_array(np.array(texts, dtype=object), hash_key="ranker text hash", categorize=False)


def sign_texts(texts: Sequence[str]) -> Signatures:
    """Min-hashes (n, SIGNATURE_BYTES) of the word trigrams of each text (Broder, 1997; one byte kept of each,
    Li and König, 2010).

    Case, punctuation and white space do not count. A text of fewer than three words is one trigram.
    """
    if not len(texts):
        return np.zeros((0, SIGNATURE_BYTES), dtype=np.uint8)
    words = [_padded(_WORD.findall(text.casefold())) for text in texts]
    lengths = np.array([len(found) for found in words])
    flat = pd.util.hash_array(np.array(list(chain.from_iterable(words)), dtype=object), hash_key=_KEY)
    size = len(flat) - SHINGLE + 1
    shingles = np.zeros(size, dtype=np.uint64)
    for place, multiplier in enumerate(_PLACES):
        shingles ^= _mixed(flat[place : place + size] * multiplier)
    ends = np.cumsum(lengths)
    whole = np.ones(size, dtype=bool)  # a trigram lies within one text
    for back in range(1, SHINGLE):
        whole[ends[:-1] - back] = False
    shingles = shingles[whole]
    starts = np.cumsum(lengths - SHINGLE + 1) - (lengths - SHINGLE + 1)
    return _least((shingles >> np.uint64(32)).astype(np.uint32), starts)


def _padded(words: list[str]) -> list[str]:
    return words + [""] * (SHINGLE - len(words))


def _mixed(values: Hashes) -> Hashes:
    return values ^ (values >> np.uint64(29))


def _least(shingles: NDArray[np.uint32], starts: NDArray[np.int64]) -> Signatures:
    found = np.empty((len(starts), SIGNATURE_BYTES), dtype=np.uint8)
    hashed = np.empty_like(shingles)
    for column, multiplier in enumerate(_MULTIPLIERS):
        np.multiply(shingles, multiplier, out=hashed)
        # The high bits, which are well mixed, decide which is the least; its low byte is kept.
        found[:, column] = np.minimum.reduceat(hashed, starts) & np.uint32(0xFF)
    return found


def likeness(one: Signatures, other: Signatures) -> NDArray[np.float32]:
    """Estimated Jaccard similarity of the trigrams of two texts, of arrays (..., SIGNATURE_BYTES): 1 for the same."""
    equal = (one == other).mean(axis=-1, dtype=np.float32)
    by_chance = np.float32(1 / 256)
    return np.asarray(np.maximum(0.0, (equal - by_chance) / (1 - by_chance)), dtype=np.float32)
