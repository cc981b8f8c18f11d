"""A reranker that runs elsewhere: this project's service, text-embeddings-inference, or a Cohere or Jina route."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

KEY = "RANKER_API_KEY"
# Documents of one request; services refuse more than some number, text-embeddings-inference 32 as it comes.
BATCH = 256
TIMEOUT_S, ABOUT_TIMEOUT_S = 60.0, 5.0
# Waits before another try, when the service is full or away for a moment.
WAITS_S = (0.2, 1.0, 3.0)
BUSY = (429, 502, 503)
# What services answer to more documents, or bytes, than they take at once.
TOO_MUCH = (413, 422)
LONGEST_WAIT_S = 10.0


class RemoteRerankerError(RuntimeError):
    """A service that cannot be reached, refuses, or answers what cannot be read."""


class TooMuchError(RemoteRerankerError):
    """A request that may be taken in parts."""


def is_address(name: object) -> bool:
    """Whether a reranker is named by an address."""
    return isinstance(name, str) and name.startswith(("http://", "https://"))


class RemoteScorer:
    """Scores pairs through a service.

    Args:
        address: of the service, whose ``/rerank`` (text-embeddings-inference) is asked, or of a whole route, such as
            ``.../v1/rerank`` (Jina) or ``.../v2/rerank`` (Cohere).
        api_key: sent as a bearer token. None: the environment's RANKER_API_KEY, if any. model: name sent along.

    Raises:
        RemoteRerankerError: where it does not answer to one pair.
    """

    def __init__(self, address: str, api_key: str | None = None, model: str | None = None) -> None:
        import requests

        path = urlsplit(address).path.rstrip("/")
        self.address = address.rstrip("/") if path.endswith("/rerank") else address.rstrip("/") + "/rerank"
        self._plain = not path.endswith(("/v1/rerank", "/v2/rerank"))
        self._model, self._key = model, api_key or os.environ.get(KEY)
        self._session = requests.Session()
        self._batch = BATCH
        self.score([("ready", "ready")])
        self._batch = self._most()

    def __repr__(self) -> str:
        return f"RemoteScorer({self.address!r})"

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Logits (n,), float32, in the order of ``pairs``; a route that gives probabilities is read back to logits.

        Texts that are longer than the model reads are cut by the service. A request that is too large for it is halved.
        """
        places: dict[str, list[int]] = {}
        for place, (query, _) in enumerate(pairs):
            places.setdefault(query, []).append(place)
        scores, size = np.zeros(len(pairs), dtype=np.float32), self._batch
        for query, rows in places.items():
            start = 0
            while start < len(rows):
                some = rows[start : start + size]
                try:
                    scores[some] = self._ask(query, [pairs[row][1] for row in some])
                except TooMuchError:
                    if len(some) == 1:
                        raise
                    size = len(some) // 2
                else:
                    start += len(some)
        self._batch = size  # not after a text that is refused alone
        return scores

    def _most(self) -> int:
        """Documents of one request: what text-embeddings-inference says of itself; others need not."""
        import requests

        if not self._plain:
            return BATCH
        address = self.address.removesuffix("/rerank") + "/info"
        try:
            answer = self._session.get(address, headers=self._headers(), timeout=ABOUT_TIMEOUT_S)
            return max(1, min(BATCH, int(answer.json()["max_client_batch_size"]))) if answer.ok else BATCH
        except (requests.RequestException, ValueError, KeyError, TypeError):
            return BATCH

    def _ask(self, query: str, documents: list[str]) -> np.ndarray:
        if self._plain:
            body: dict[str, Any] = {"query": query, "texts": documents, "raw_scores": True, "truncate": True}
        else:
            body = {"model": self._model or "ranker", "query": query, "documents": documents, "top_n": len(documents)}
        answer = self._post(body)
        name = "score" if self._plain else "relevance_score"
        try:
            found = {int(one["index"]): float(one[name]) for one in (answer if self._plain else answer["results"])}
            scores = np.array([found[place] for place in range(len(documents))], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise RemoteRerankerError(
                f"{self.address}: no score of every document in its answer ({str(answer)[:200]}); is it a reranker?"
            ) from error
        return scores if self._plain else _logits(scores)

    def _post(self, body: Mapping[str, Any]) -> Any:
        import requests

        for wait in (*WAITS_S, None):
            try:
                answer = self._session.post(self.address, json=body, headers=self._headers(), timeout=TIMEOUT_S)
                if answer.status_code not in BUSY or wait is None:
                    return self._read(answer)
                after = answer.headers.get("retry-after", "")
                time.sleep(min(float(after) if after.isdigit() else wait, LONGEST_WAIT_S))
            except requests.ConnectionError as error:
                if wait is None:
                    raise RemoteRerankerError(f"{self.address}: cannot be reached ({error}); is it running?") from error
                time.sleep(wait)
            except requests.RequestException as error:
                raise RemoteRerankerError(f"{self.address}: {type(error).__name__}: {error}") from error
        raise AssertionError(WAITS_S)

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key}"} if self._key else {}

    def _read(self, answer: Any) -> Any:
        if not answer.ok:
            hint = f"; set reranker_api_key or {KEY}" if answer.status_code in (401, 403) else ""
            kind = TooMuchError if answer.status_code in TOO_MUCH else RemoteRerankerError
            raise kind(f"{self.address}: status {answer.status_code}: {answer.text[:300]}{hint}")
        try:
            return answer.json()
        except ValueError as error:
            raise RemoteRerankerError(f"{self.address}: no JSON in its answer: {answer.text[:200]!r}") from error


def _logits(scores: np.ndarray) -> np.ndarray:
    inside = np.clip(scores, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(inside) - np.log1p(-inside))
