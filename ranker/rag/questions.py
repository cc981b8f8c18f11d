"""How a question is answered: encode, search, rerank, choose; one question or many."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ranker.rag.documents import Document
from ranker.rag.filters import Where
from ranker.rag.fusion import diverse
from ranker.rag.library import Found, Library
from ranker.rag.reranker import Reranker
from ranker.rag.results import Result, Results
from ranker.retrieval.encoder import Encoder
from ranker.retrieval.stores import Vectors
from ranker.schemas import RankedDocument
from ranker.scoring.pairs import without_surrogates

_DEFAULT: Any = object()


class Questions:
    """What :class:`ranker.rag.RAGPipeline` answers from; its arguments are told there.

    May be asked from several threads while documents are added.
    """

    def __init__(
        self,
        encoder: Encoder,
        reranker: Reranker | None,
        library: Library,
        top_k_retrieval: int,
        top_k_rerank: int,
        hybrid: bool,
        score_threshold: float | None,
        diversity: float,
    ) -> None:
        self.encoder, self.reranker, self._library = encoder, reranker, library
        self.top_k_retrieval, self.top_k_rerank = top_k_retrieval, top_k_rerank
        self.hybrid, self.score_threshold, self.diversity = hybrid, score_threshold, diversity
        self._lock = threading.RLock()  # of the library
        self._encoding = threading.Lock()  # a tokenizer is not made for several threads

    @property
    def scorer(self) -> Any:
        """What scores pairs; None without a reranker."""
        return None if self.reranker is None else self.reranker.scorer

    def retrieve(self, query: str, top_k: int | None = None, *, where: Where | None = None) -> Results:
        """The nearest documents, best first, by cosine; of a hybrid pipeline by the fused ranks.

        Args:
            query: what is asked.
            top_k: how many. None: ``top_k_retrieval``.
            where: only documents whose metadata fits, see :func:`ranker.rag.filters.predicate`.

        Raises:
            ValueError: where no documents were indexed, or on a ``top_k`` below 1. FilterError: on a bad ``where``.
        """
        return self.retrieve_many([query], top_k, where=where)[0]

    def retrieve_many(
        self, queries: Sequence[str], top_k: int | None = None, *, where: Where | None = None
    ) -> list[Results]:
        """The same for many questions, encoded and searched together."""
        top_k = self.top_k_retrieval if top_k is None else top_k
        asked = self._checked(queries, top_k)
        start = time.perf_counter()
        with self._encoding:
            vectors = self.encoder.encode_queries(asked)
        encoded = time.perf_counter()
        if self.hybrid:
            self._library.index_words(self._lock)
        with self._lock:
            allowed = self._library.allowed(where)
            lists = self._library.dense(vectors, top_k, allowed)
            if self.hybrid:
                pairs = zip(asked, lists, strict=True)
                lists = [self._library.hybrid(query, dense, top_k, allowed) for query, dense in pairs]
            found = [[self._result(one, rank) for rank, one in enumerate(ranked, 1)] for ranked in lists]
        end = time.perf_counter()
        times = {"encode": encoded - start, "search": end - encoded, "total": end - start}
        return [Results(ranked, query, dict(times)) for query, ranked in zip(queries, found, strict=True)]

    def rerank(
        self,
        query: str,
        documents: Sequence[RankedDocument | str],
        top_k: int | None = None,
        *,
        score_threshold: float | None = _DEFAULT,
    ) -> Results:
        """These documents as the reranker orders them; ties keep the order given.

        Args:
            query: what is asked.
            documents: from :meth:`retrieve`, or any strings, which then are numbered.
            top_k: how many come back. None: ``top_k_rerank``.
            score_threshold: another one than the pipeline's.

        Raises:
            ValueError: on a pipeline without a reranker.
        """
        return self.rerank_many([query], [documents], top_k, score_threshold=score_threshold)[0]

    def rerank_many(
        self,
        queries: Sequence[str],
        documents: Sequence[Sequence[RankedDocument | str]],
        top_k: int | None = None,
        *,
        score_threshold: float | None = _DEFAULT,
    ) -> list[Results]:
        """The same for the list of each question, all pairs scored together."""
        if self.reranker is None:
            raise ValueError("this pipeline has no reranker; construct it with reranker_model=")
        top_k = self.top_k_rerank if top_k is None else top_k
        least = self.score_threshold if score_threshold is _DEFAULT else score_threshold
        self._checked(queries, top_k, need_documents=False)
        lists = [[_listed(one, place) for place, one in enumerate(some)] for some in documents]
        start = time.perf_counter()
        with self._lock:
            pairs = [(query, self._reading(one)) for query, some in zip(queries, lists, strict=True) for one in some]
        scores = self.reranker.scores(pairs)
        seconds, answers, first = time.perf_counter() - start, [], 0
        for query, some, given in zip(queries, lists, documents, strict=True):
            values = scores[first : first + len(some)]
            first += len(some)
            times = {
                stage: wait for stage, wait in getattr(given, "times", {}).items() if stage in ("encode", "search")
            }
            times["rerank"] = seconds
            times["total"] = sum(times.values())
            answers.append(Results(self._chosen(some, values, top_k, least), query, times))
        return answers

    def retrieve_and_rerank(
        self,
        query: str,
        *,
        top_k: int | None = None,
        where: Where | None = None,
        score_threshold: float | None = _DEFAULT,
    ) -> Results:
        """The ``top_k_rerank`` best of ``top_k_retrieval`` retrieved documents, with ranks and scores of both stages.

        Without a reranker: the retriever's best.

        Args:
            query: what is asked.
            top_k: how many come back; where that is more than ``top_k_retrieval``, as many are retrieved. None:
                ``top_k_rerank``.
            where: only documents whose metadata fits.
            score_threshold: another one than the pipeline's.
        """
        return self.retrieve_and_rerank_many([query], top_k=top_k, where=where, score_threshold=score_threshold)[0]

    def retrieve_and_rerank_many(
        self,
        queries: Sequence[str],
        *,
        top_k: int | None = None,
        where: Where | None = None,
        score_threshold: float | None = _DEFAULT,
    ) -> list[Results]:
        """The same for many questions: one batch through each model."""
        top_k = self.top_k_rerank if top_k is None else top_k
        self._checked(queries, top_k)
        found = self.retrieve_many(queries, max(self.top_k_retrieval, top_k), where=where)
        if self.reranker is not None:
            return self.rerank_many(queries, found, top_k, score_threshold=score_threshold)
        least = self.score_threshold if score_threshold is _DEFAULT else score_threshold
        return [
            Results(self._chosen(ranked, np.array([one.score for one in ranked]), top_k, least), query, ranked.times)
            for query, ranked in zip(queries, found, strict=True)
        ]

    def _chosen(self, given: Sequence[Result], scores: np.ndarray, top_k: int, least: float | None) -> list[Result]:
        order = np.argsort(-scores, kind="stable")
        if least is not None:
            order = order[scores[order] >= least]
        if self.diversity and len(order) > 1:
            vectors = self._vectors([given[place] for place in order])
            order = order[diverse(scores[order].tolist(), vectors, self.diversity, top_k)]
        return [
            replace(given[place], score=float(scores[place]), rank=rank)
            for rank, place in enumerate(order[:top_k].tolist(), 1)
        ]

    def _vectors(self, results: Sequence[Result]) -> Vectors:
        """Of the passages: from the store, or encoded where the documents are not from here."""
        with self._lock:
            keys = [self._key(one) for one in results]
            if all(key is not None for key in keys):
                return self._library.store.vectors([key for key in keys if key is not None])
            texts = [self._reading(one) for one in results]
        return self._encode_documents(texts)

    def _key(self, result: Result) -> str | None:
        # Strings are numbered, and a number may be the id of another document here.
        return self._library.key_of(result.doc_id, result.start) if self._known(result) is not None else None

    def _encode_documents(self, texts: Sequence[str]) -> Vectors:
        with self._encoding:
            return self.encoder.encode_documents(texts)

    def _checked(self, queries: Sequence[str], top_k: int, need_documents: bool = True) -> list[str]:
        if isinstance(queries, str):
            raise TypeError(f"queries is the string {queries!r:.60}; give a list of questions")
        wrong = next((query for query in queries if not isinstance(query, str)), None)
        if wrong is not None:
            raise TypeError(f"query is {wrong!r:.60}; ask with one string")
        if top_k < 1:
            raise ValueError(f"top_k {top_k} must be at least 1")
        if need_documents and not self._library.documents:
            raise ValueError("no documents are indexed; call index_documents first")
        return [without_surrogates(query) for query in queries]

    def _result(self, found: Found, rank: int) -> Result:
        passage = found.passage
        document, score = self._library.documents[passage.doc_id], float(found.score)
        part = document.text[passage.start : passage.end]
        ranks = {"score": score, "rank": rank, "retrieval_score": score, "retrieval_rank": rank}
        about: Mapping[str, Any] = {**ranks, "metadata": document.described(), "passage": part, "start": passage.start}
        return Result(document.doc_id, document.text, **about)

    def _known(self, result: Result) -> Document | None:
        known = self._library.documents.get(result.doc_id)
        return known if known is not None and known.text == result.text else None

    def _reading(self, result: Result) -> str:
        known, part = self._known(result), result.passage or result.text
        return f"{known.title} {part}".strip() if known is not None else part


def _listed(document: RankedDocument | str | Result, place: int) -> Result:
    if isinstance(document, Result):
        return document
    if isinstance(document, str):
        return Result(str(place), document, 0.0, place + 1)
    if not isinstance(document, RankedDocument):
        raise TypeError(f"document {place} is a {type(document).__name__}; rerank strings or what retrieve gave")
    return Result(**{name: getattr(document, name) for name in RankedDocument.__dataclass_fields__})
