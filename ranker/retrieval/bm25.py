"""BM25 as the baseline that every neural ranker is held against, through the `bm25s` package (arXiv:2407.03618)."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ranker.schemas import CORPUS, QUERIES, RUN, document_texts, require

# Lucene's scoring with the package's own k1 and b.
K1, B, METHOD = 1.5, 0.75, "lucene"


def bm25_run(corpus: pa.Table, queries: pa.Table, k: int, *, language: str = "en") -> pa.Table:
    """The best ``k`` documents of every query as RUN, ranks from 1; equal scores in corpus order.

    Texts are lower-cased and split at everything that is no word character; stopwords of ``language`` are left out and
    nothing is stemmed. Documents that share no word with a query are not in its list.

    Raises:
        SchemaError: on tables of another type.
    """
    corpus, queries = require(corpus, CORPUS, "corpus"), require(queries, QUERIES, "queries")
    doc_ids = corpus["doc_id"].to_pylist()
    scorer = BM25(document_texts(corpus), language)
    rows: list[tuple[str, str, float, int]] = []
    for query_id, tokens in zip(
        queries["query_id"].to_pylist(), tokenized(queries["text"].to_pylist(), language), strict=True
    ):
        scores = scorer.scores(tokens)
        best = top_positions(scores, k)
        rows += [(query_id, doc_ids[row], float(scores[row]), rank) for rank, row in enumerate(best.tolist(), 1)]
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], [], []], schema=RUN)


def top_positions(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Positions of the ``k`` highest scores above zero, highest first, equal ones in order."""
    positive = np.flatnonzero(scores > 0)
    if len(positive) > k:
        least = np.partition(scores[positive], len(positive) - k)[len(positive) - k]
        positive = positive[scores[positive] >= least]
    return positive[np.argsort(-scores[positive], kind="stable")][:k]


class BM25:
    """An index of texts in memory; a text that is added or removed needs a new one.

    Args:
        texts: in the order of the scores. language: whose stopwords are left out.
    """

    def __init__(self, texts: Sequence[str], language: str = "en") -> None:
        import bm25s

        tokens = tokenized(texts, language)
        self._size, self._language = len(texts), language
        self._words = {word for document in tokens for word in document}
        self._index: Any = bm25s.BM25(k1=K1, b=B, method=METHOD)
        if self._words:
            _quiet()
            self._index.index(tokens, show_progress=False)

    def scores(self, tokens: list[str]) -> NDArray[np.float32]:
        """The score of every text for these words; 0 where it has none of them."""
        known = [word for word in tokens if word in self._words]
        if not known:
            return np.zeros(self._size, dtype=np.float32)
        return np.asarray(self._index.get_scores(known), dtype=np.float32)

    def search(self, query: str, k: int, allowed: NDArray[np.bool_] | None = None) -> list[tuple[int, float]]:
        """(position, score) of the best ``k`` texts that share a word with the query; of the ``allowed`` ones only."""
        scores = self.scores(tokenized([query], self._language)[0])
        if allowed is not None:
            scores = np.where(allowed, scores, np.float32(0))
        return [(int(row), float(scores[row])) for row in top_positions(scores, k)]


def tokenized(texts: Sequence[str], language: str) -> list[list[str]]:
    """The words of each text, lower-cased, without stopwords."""
    import bm25s

    _quiet()
    if not texts:
        return []
    tokens: list[list[str]] = bm25s.tokenize(
        list(texts), lower=True, stopwords=language, stemmer=None, return_ids=False, show_progress=False
    )
    return tokens


def _quiet() -> None:
    logging.getLogger("bm25s").setLevel(logging.WARNING)
