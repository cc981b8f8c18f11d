"""What benchmarks/forgetting.py trains and measures on: encoded collections, groups to learn from, lists to rerank."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ranker.data.catalog import load_splits
from ranker.data.splits import Splits
from ranker.evaluation.candidates import sample_queries
from ranker.measures import evaluate_run
from ranker.pretrained import BUNDLED
from ranker.retrieval.encoder import Encoder
from ranker.schemas import RUN, document_texts
from ranker.scoring.pairs import encode_pairs
from ranker.training.batches import STORED

TRAIN_DEPTH, TEST_DEPTH = 100, 30
QUERIES_A_BLOCK = 256  # whose similarities with the whole corpus are in memory at once
# Of the samples of queries: another seed of the runs shall be measured on the same ones.
SAMPLE_SEED = 13
MEASURE = "ndcg@10"
RETRIEVERS_WEIGHT = 0.25

Floats = NDArray[np.float32]


class Store(NamedTuple):
    """Where vectors are kept, and the device that computes them."""

    folder: Path
    device: str


class Asked(NamedTuple):
    """Queries of a split with what the retriever finds for them.

    Args:
        relevant: for each query the rows of its relevant documents, in the order of the judgements.
        rows, cosines: (queries, depth), the nearest first.
    """

    ids: list[str]
    texts: list[str]
    vectors: Floats
    relevant: list[list[int]]
    rows: NDArray[np.int64]
    cosines: Floats
    qrels: pa.Table


@dataclass(frozen=True)
class Encoded:
    """A collection with the retriever's vectors of its documents."""

    name: str
    data: Splits
    store: Store
    ids: list[str]
    texts: list[str]
    vectors: Floats
    limit: int

    def asked(self, split: str, depth: int, most: int | None = None) -> Asked:
        """The judged queries of a split, or a sample of them."""
        found = sample_queries(self.data.collection(split), most, SAMPLE_SEED)
        ids, texts = found.queries["query_id"].to_pylist(), found.queries["text"].to_pylist()
        row_of, number_of = ({name: row for row, name in enumerate(names)} for names in (self.ids, ids))
        relevant: list[list[int]] = [[] for _ in ids]
        for judged in found.qrels.to_pylist():
            if judged["relevance"] >= found.relevance_level and judged["doc_id"] in row_of:
                relevant[number_of[judged["query_id"]]].append(row_of[judged["doc_id"]])
        vectors = encode(texts, "queries", self.limit, self.store)
        rows, cosines = nearest(vectors, self.vectors, depth, self.store.device)
        return Asked(ids, texts, vectors, relevant, rows, cosines, found.qrels)


def open_encoded(name: str, source: str, limit: int, store: Store, **options: Any) -> Encoded:
    """A collection in a format that ranker reads, its documents encoded up to ``limit`` tokens."""
    data = load_splits(source, **options)
    corpus = data.corpus.table()
    texts = document_texts(corpus)
    vectors = encode(texts, "documents", limit, store)
    return Encoded(name, data, store, corpus["doc_id"].to_pylist(), texts, vectors, limit)


def encode(texts: Sequence[str], kind: str, limit: int, store: Store) -> Floats:
    """Vectors of these texts, kept in a file that is named by what decides them."""
    told = json.dumps([BUNDLED, kind, limit, list(texts)])
    file = store.folder / f"{kind}-{hashlib.blake2b(told.encode(), digest_size=8).hexdigest()}.npy"
    if not file.is_file():
        encoder = _encoder(limit, store.device)
        found = encoder.encode_queries(texts) if kind == "queries" else encoder.encode_documents(texts)
        store.folder.mkdir(parents=True, exist_ok=True)
        with (temporary := file.with_suffix(".tmp")).open("wb") as stream:
            np.save(stream, found)
        temporary.replace(file)
    vectors: Floats = np.load(file)
    return vectors


@lru_cache
def _encoder(limit: int, device: str) -> Encoder:
    return Encoder(BUNDLED, limit, "fp32", device, engine="torch")


def nearest(queries: Floats, documents: Floats, depth: int, device: str) -> tuple[NDArray[np.int64], Floats]:
    """Rows and cosines (queries, depth) of the nearest documents; fewer where the corpus is smaller."""
    corpus = torch.from_numpy(documents).to(device).T
    rows, cosines = [], []
    for start in range(0, len(queries), QUERIES_A_BLOCK):
        block = torch.from_numpy(queries[start : start + QUERIES_A_BLOCK]).to(device)
        found = (block @ corpus).topk(min(depth, len(documents)))
        rows.append(found.indices.cpu().numpy())
        cosines.append(found.values.cpu().numpy())
    return np.concatenate(rows), np.concatenate(cosines)


@dataclass(frozen=True)
class Draw:
    """Which negatives a query gets.

    Args:
        hard: of those the retriever finds. anywhere: of the whole corpus.
        depth: so many of the retriever's list are looked at.
        margin: share by which a hard one's cosine must lie below that of the best positive. None: it may be any.
        drawn: whether the hard ones are drawn; otherwise they are the nearest.
    """

    hard: int
    anywhere: int = 0
    depth: int = TEST_DEPTH
    margin: float | None = None
    drawn: bool = True


def groups_of(found: Encoded, asked: Asked, draw: Draw, seed: int) -> pa.Table:
    """One group a query: its first relevant document, then negatives; ``scores`` are the retriever's cosines.

    Queries without a relevant document in the corpus, or without a negative, have none.
    """
    groups = []
    for number, query_id in enumerate(asked.ids):
        negatives = _negatives(found, asked, number, draw, np.random.default_rng([seed, crc32(query_id.encode())]))
        if not negatives:
            continue
        rows = [asked.relevant[number][0], *negatives]
        groups.append(
            {
                "query_id": query_id,
                "query": asked.texts[number],
                "documents": [found.texts[row] for row in rows],
                "labels": [1.0] + [0.0] * len(negatives),
                "scores": (found.vectors[rows] @ asked.vectors[number]).tolist(),
            }
        )
    return pa.Table.from_pylist(groups, schema=STORED)


def _negatives(found: Encoded, asked: Asked, number: int, draw: Draw, rng: np.random.Generator) -> list[int]:
    """Rows of documents, no text twice and none with the text of a relevant document."""
    positives = asked.relevant[number]
    if not positives:
        return []
    used = {found.texts[row] for row in positives}

    def first(rows: Iterable[int], count: int) -> list[int]:
        chosen: list[int] = []
        for row in rows:
            if len(chosen) < count and found.texts[row] not in used:
                used.add(found.texts[row])
                chosen.append(row)
        return chosen

    near, cosines = asked.rows[number, : draw.depth], asked.cosines[number, : draw.depth]
    if draw.margin is not None:
        best = float((found.vectors[positives] @ asked.vectors[number]).max())
        # |best|: a share of a negative cosine would raise the threshold.
        near = near[cosines <= best - draw.margin * abs(best)]
    hard = first((rng.permutation(near) if draw.drawn else near).tolist(), draw.hard)
    # Some of them are used already.
    anywhere = rng.integers(len(found.texts), size=20 * draw.anywhere)
    return hard + first(anywhere.tolist(), draw.anywhere)


@dataclass(frozen=True)
class Lists:
    """What is reranked: the retriever's best documents of each query, tokenised once.

    Args:
        run: RUN with the retriever's ranks, which decide among equal scores. cosines: (queries, depth).
        columns: token ids of each row of ``run``.
    """

    name: str
    run: pa.Table
    qrels: pa.Table
    cosines: Floats
    columns: dict[str, list[list[int]]]

    def ndcg(self, scores: NDArray[Any]) -> float:
        """In the order of these scores (queries, depth). Relevant documents that the retriever missed count."""
        run = self.run.set_column(2, "score", pa.array(scores.ravel().astype(np.float64)))
        return evaluate_run(run, self.qrels, [MEASURE]).means[MEASURE]

    def figures(self, logits: NDArray[Any]) -> list[float]:
        """NDCG of the model's own order, and with the retriever's cosines mixed in."""
        model = logits.reshape(self.cosines.shape)
        mixed = (1 - RETRIEVERS_WEIGHT) * standardised(model) + RETRIEVERS_WEIGHT * standardised(self.cosines)
        return [self.ndcg(model), self.ndcg(mixed)]


def standardised(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Each list with mean 0 and deviation 1; one of equal scores is 0."""
    values = scores.astype(np.float64)
    spread = values.std(axis=1, keepdims=True)
    return (values - values.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)


def lists_of(found: Encoded, most: int | None, tokenizer: Any, max_length: int) -> Lists:
    """Of the collection's test queries, or of a sample of ``most``."""
    asked = found.asked("test", TEST_DEPTH, most)
    depth = asked.rows.shape[1]
    keys = [(number, row) for number, rows in enumerate(asked.rows.tolist()) for row in rows]
    columns = [
        [asked.ids[number] for number, _ in keys],
        [found.ids[row] for _, row in keys],
        asked.cosines.ravel().astype(np.float64),
        np.tile(np.arange(1, depth + 1), len(asked.ids)),
    ]
    run = pa.table([pa.array(each, kind) for each, kind in zip(columns, RUN.types, strict=True)], schema=RUN)
    pairs = [(asked.texts[number], found.texts[row]) for number, row in keys]
    return Lists(found.name, run, asked.qrels, asked.cosines, dict(encode_pairs(tokenizer, pairs, max_length)))
