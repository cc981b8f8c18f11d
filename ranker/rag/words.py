"""BM25 over passages: the words of each are kept, so that a change costs only what is new."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.retrieval.bm25 import K1, METHOD, B, tokenized

Numbers = NDArray[np.int32]
LANGUAGE = "en"


class Words:
    """The words of passages, as numbers, and the BM25 index that was built of them last.

    What is asked reads the index as it stands; :meth:`build` puts another in its place, beside the questions.
    """

    def __init__(self) -> None:
        self._vocabulary: dict[str, int] = {}
        self._numbers: dict[str, Numbers] = {}
        self._building = threading.Lock()
        self._built: tuple[int, list[str], Any] = (-1, [], None)

    @property
    def revision(self) -> int:
        """Of the passages that the index was built of; -1: there is none."""
        return self._built[0]

    def known(self, keys: Iterable[str]) -> list[Numbers | None]:
        """The words of passages; None of those that :meth:`build` has to be given the text of."""
        return [self._numbers.get(key) for key in keys]

    def forget(self, keys: Iterable[str]) -> None:
        """Let go of the words of passages that are no more; the index stays as it is."""
        for key in keys:
            self._numbers.pop(key, None)

    def build(
        self, revision: int, order: list[str], numbers: Sequence[Numbers | None], texts: Mapping[str, str]
    ) -> None:
        """Build the index of these passages, unless one of this revision, or a later one, is there.

        Args:
            revision: of the passages. order: their keys. numbers: what :meth:`known` said of them.
            texts: of those that it did not know.
        """
        import bm25s

        with self._building:
            if self.revision >= revision:
                return
            words = tokenized(list(texts.values()), LANGUAGE)
            fresh = {key: self._numbered(some) for key, some in zip(texts, words, strict=True)}
            self._numbers.update(fresh)
            ids = [(fresh[key] if some is None else some).tolist() for key, some in zip(order, numbers, strict=True)]
            index = None
            if any(ids):
                index = bm25s.BM25(k1=K1, b=B, method=METHOD)
                index.index((ids, dict(self._vocabulary)), show_progress=False)
            self._built = (revision, order, index)

    def _numbered(self, words: Sequence[str]) -> Numbers:
        vocabulary = self._vocabulary
        return np.array([vocabulary.setdefault(word, len(vocabulary)) for word in words], dtype=np.int32)

    def scores(self, query: str) -> tuple[list[str], NDArray[np.float32]]:
        """The passages of the index, and the score of each for a query; 0 where they share no word."""
        _, order, index = self._built
        asked = [] if index is None else [w for w in tokenized([query], LANGUAGE)[0] if w in index.vocab_dict]
        if not asked:
            return order, np.zeros(len(order), dtype=np.float32)
        return order, np.asarray(index.get_scores(asked), dtype=np.float32)
