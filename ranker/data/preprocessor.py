"""Collections as plain training examples, without a retriever."""

from collections.abc import Mapping
from zlib import crc32

import numpy as np

from ranker.data.errors import DataError
from ranker.schemas import Collection

Triple = tuple[str, str, str]


class DataPreprocessor:
    """Turns collections into (query, positive, negative) triples.

    Args:
        seed: of the drawn negatives.
    """

    def __init__(self, *, seed: int = 13) -> None:
        self.seed = seed

    def create_triples(self, collection: Collection, num_negatives: int = 1) -> list[Triple]:
        """``num_negatives`` triples (query, positive, negative) for every relevant document.

        Negatives are the documents judged irrelevant, then those of the collection's own candidate run, then random
        ones of the corpus; never a relevant document of the query nor a copy of one. All of it is seeded.

        Raises:
            ranker.data.DataError: where no query has a relevant document, or ``num_negatives`` is below 1.
        """
        if num_negatives < 1:
            raise DataError(f"num_negatives {num_negatives} must be at least 1")
        texts = collection.texts()
        doc_ids, candidates = list(texts), _candidates(collection)
        relevant: dict[str, list[str]] = {}
        irrelevant: dict[str, list[str]] = {}
        for row in collection.qrels.to_pylist():
            side = relevant if row["relevance"] > 0 else irrelevant
            side.setdefault(row["query_id"], []).append(row["doc_id"])
        triples: list[Triple] = []
        for query in collection.queries.to_pylist():
            query_id = query["query_id"]
            positives = [texts[doc_id] for doc_id in relevant.get(query_id, []) if doc_id in texts]
            known = [*irrelevant.get(query_id, []), *candidates.get(query_id, [])]
            rng = np.random.default_rng([self.seed, crc32(query_id.encode())])
            needed = num_negatives * len(positives)
            negatives = _negatives(known, doc_ids, texts, set(positives), needed, rng)
            for start, positive in enumerate(positives):
                triples += [(query["text"], positive, negative) for negative in negatives[start :: len(positives)]]
        if not triples:
            raise DataError(f"{collection!r}: no query has a relevant document and another one beside it")
        return triples


def _candidates(collection: Collection) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if collection.run is not None:
        for row in collection.run.sort_by([("query_id", "ascending"), ("rank", "ascending")]).to_pylist():
            found.setdefault(row["query_id"], []).append(row["doc_id"])
    return found


def _negatives(
    known: list[str],
    doc_ids: list[str],
    texts: Mapping[str, str],
    positives: set[str],
    count: int,
    rng: np.random.Generator,
) -> list[str]:
    """``count`` texts: the known ones first, then random ones; each once, fewer where the corpus has no more."""
    used = set(positives)
    chosen: list[str] = []
    for doc_id in known:
        if len(chosen) < count and doc_id in texts and texts[doc_id] not in used:
            used.add(texts[doc_id])
            chosen.append(texts[doc_id])
    for _ in range(20 * count):
        if len(chosen) == count:
            break
        text = texts[doc_ids[rng.integers(len(doc_ids))]]
        if text not in used:
            used.add(text)
            chosen.append(text)
    return chosen
