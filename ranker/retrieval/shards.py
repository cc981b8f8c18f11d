"""An index folder as shards on disk: what it says of itself, and one exact merge of what its shards find.

Documents are known by their keys: positions in the corpus. Scores of a flat index are summed in float64 and equal ones
are ordered by key, so that the lists do not depend on how the corpus is cut.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.config import Precision
from ranker.manifest import StageError, read_manifest
from ranker.retrieval.embeddings import Embeddings, dot
from ranker.retrieval.stores import STORES, FaissStore

Vectors = NDArray[np.float32]
Keys = NDArray[np.int64]
INDEX_FILE = "index.json"

# Neighbours looked up beyond those asked for: FAISS's own sums in float32 may order near ties otherwise.
SPARE = 16
# More than such sums are off for vectors of length 1.
ROUNDING = 2e-6
# Numbers of the vectors that are scored at once.
SCORED_FLOATS = 2**23
_NOTHING = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class IndexInfo:
    """What ``index.json`` says: how to encode a query for this index, and which shards it has.

    Args:
        model, max_length, precision: of the encoder. dimension: of the vectors. store: name in STORES.
        factory: ``faiss.index_factory`` string. shards: documents of each shard, in corpus order.
        embeddings: their folder, as seen from the index folder.
    """

    model: str
    dimension: int
    store: str
    factory: str
    max_length: int | None
    precision: Precision
    shards: tuple[int, ...]
    embeddings: str

    @property
    def offsets(self) -> list[int]:
        """Position in the corpus of the first document of each shard."""
        return [sum(self.shards[:shard]) for shard in range(len(self.shards))]

    @property
    def num_documents(self) -> int:
        """Of all shards."""
        return sum(self.shards)

    @classmethod
    def read(cls, folder: Path) -> "IndexInfo":
        """Of a finished index folder.

        Raises:
            ranker.manifest.StageError: where the stage `index` has not finished, or another version wrote it.
        """
        read_manifest(folder)
        plain = json.loads((folder / INDEX_FILE).read_text("utf-8"))
        try:
            return cls(**{**plain, "shards": tuple(plain["shards"])})
        except TypeError as error:
            raise StageError(f"{folder}: written by another version of ranker; run the stage index again") from error


def embeddings_of(folder: Path) -> Embeddings:
    """The embeddings that an index was built from.

    Raises:
        ranker.manifest.StageError: where they are not beside it any more, or others lie there.
    """
    place = (folder / IndexInfo.read(folder).embeddings).resolve()
    remedy = "run the stage index again, or name their folder as index.embeddings_dir"
    if read_manifest(place).key != read_manifest(folder).inputs.get("embeddings"):
        raise StageError(f"{place}: not the embeddings that {folder} was built from; {remedy}")
    return Embeddings.read(place)


def shard_folder(folder: Path, shard: int) -> Path:
    """Where a shard of an index lies."""
    return folder / "shards" / f"shard-{shard:05d}"


def merge_shards(keys: Sequence[Keys], scores: Sequence[Vectors], k: int) -> tuple[Keys, Vectors]:
    """The best ``k`` of several shards' lists.

    Args:
        keys: one array (q, any) a shard: positions in the whole corpus, -1 where there is none.
        scores: the same shapes, higher is nearer.
        k: length of the merged lists.

    Returns:
        Keys and scores (q, k), best first; equal scores in corpus order; -1 and -inf at the end of short lists.
    """
    if not keys:
        raise ValueError("no shards to merge; build the index again")
    packed = np.concatenate([_pack(*found) for found in zip(keys, scores, strict=True)], axis=1)
    if packed.shape[1] > k:
        packed = np.partition(packed, k - 1, axis=1)[:, :k] if k else packed[:, :0]
    packed.sort(axis=1)
    short = k - packed.shape[1]
    return _unpack(np.pad(packed, ((0, 0), (0, max(short, 0))), constant_values=_NOTHING))


def _pack(keys: Keys, scores: Vectors) -> NDArray[np.uint64]:
    """One number a neighbour that sorts as (score falling, key rising) does; the sort of a pair is three times slower.

    faiss.ResultHeap keeps the best scores too, but which of several equal ones stays depends on the shards.
    """
    bits = np.ascontiguousarray(scores + np.float32(0), dtype=np.float32).view(np.uint32)  # + 0: no negative zero
    rising = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(2**31))
    packed = (~rising).astype(np.uint64) << np.uint64(32) | keys.astype(np.uint64) & np.uint64(2**32 - 1)
    return np.where(keys < 0, _NOTHING, packed)


def _unpack(packed: NDArray[np.uint64]) -> tuple[Keys, Vectors]:
    rising = ~(packed >> np.uint64(32)).astype(np.uint32)
    bits = np.where(rising >> np.uint32(31), rising & np.uint32(2**31 - 1), ~rising).astype(np.uint32)
    none = packed == _NOTHING
    keys = np.where(none, -1, (packed & np.uint64(2**32 - 1)).astype(np.int64))
    return keys, np.where(none, np.float32(-np.inf), bits.view(np.float32))


def search_vectors(folder: Path, vectors: Vectors, k: int) -> tuple[Keys, Vectors]:
    """Keys and scores (q, k) of the documents nearest to query vectors (q, d), shard by shard in this process."""
    info = IndexInfo.read(folder)
    best: list[tuple[Keys, Vectors]] = []
    for shard in range(len(info.shards)):
        best.append(search_shard(folder, info, shard, vectors, k))
        best = [merge_shards([keys for keys, _ in best], [scores for _, scores in best], k)]
    return best[0]


def search_shard(folder: Path, info: IndexInfo, shard: int, vectors: Vectors, k: int) -> tuple[Keys, Vectors]:
    """Keys and scores (q, at most k) of one shard."""
    store = STORES[info.store].load(shard_folder(folder, shard))
    if not isinstance(store, FaissStore):
        raise TypeError(f"sharded search needs a faiss store, not {info.store!r}")
    keys, scores = search_store(store, vectors, k)
    return np.where(keys < 0, -1, keys + info.offsets[shard]), scores


def search_store(store: FaissStore, vectors: Vectors, k: int) -> tuple[Keys, Vectors]:
    """Keys in one store and scores (q, at most k); exact where the store is flat, to the last bit and tie."""
    stored = store.flat_vectors()
    if stored is None:
        return store.search_keys(vectors, k)
    k = min(k, len(stored))
    found, near = store.search_keys(vectors, k + SPARE)
    keys, scores = merge_shards([found], [_exact_scores(stored, vectors, found)], k)
    if found.shape[1] < len(stored) and k:
        # Whatever was not found scores less than the last that was, give or take the rounding.
        for row in np.flatnonzero(scores[:, -1] <= near[:, -1] + ROUNDING).tolist():
            keys[row], scores[row] = _best_of_all(stored, vectors[row], k)
    return keys, scores


def _exact_scores(stored: Any, vectors: Vectors, keys: Keys) -> Vectors:
    scores = np.empty(keys.shape, dtype=np.float32)
    together = max(1, SCORED_FLOATS // max(1, keys.shape[1] * stored.shape[1]))
    for start in range(0, len(keys), together):
        some = slice(start, start + together)
        scores[some] = dot(vectors[some, None, :], stored[keys[some]])
    return scores


def _best_of_all(stored: Any, vector: Vectors, k: int) -> tuple[Keys, Vectors]:
    """The best ``k`` of one query where many documents score nearly the same, such as copies of one text."""
    rough = stored @ vector
    least = np.partition(rough, len(rough) - k)[len(rough) - k] - 2 * ROUNDING
    keys = np.flatnonzero(rough >= least)
    scores = np.concatenate([dot(vector, stored[some]) for some in np.array_split(keys, 1 + len(keys) // 4096)])
    best_keys, best_scores = merge_shards([keys[None, :]], [scores[None, :]], k)
    return best_keys[0], best_scores[0]


def name_keys(folder: Path, info: IndexInfo, keys: Keys) -> list[list[str]]:
    """doc_ids of the keys (q, k) of each query; only the ids that are asked for are held."""
    wanted, back = np.unique(keys[keys >= 0], return_inverse=True)
    names: list[str] = []
    for shard, (first, size) in enumerate(zip(info.offsets, info.shards, strict=True)):
        low, high = np.searchsorted(wanted, [first, first + size])
        if low < high:
            ids = pq.read_table(shard_folder(folder, shard) / "ids.parquet")["doc_id"]
            names += ids.take(wanted[low:high] - first).to_pylist()
    flat = iter(back.tolist())
    return [[names[next(flat)] for key in row if key >= 0] for row in keys.tolist()]
