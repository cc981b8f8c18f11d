"""An index folder as shards on disk: what it says of itself, and one exact merge of what its shards find."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from ranker.config import Precision
from ranker.manifest import read_manifest
from ranker.retrieval.stores import STORES, FaissStore

Vectors = NDArray[np.float32]
Keys = NDArray[np.int64]
Found = tuple[Keys, Vectors, list[str | None]]
INDEX_FILE = "index.json"


@dataclass(frozen=True)
class IndexInfo:
    """What ``index.json`` says: how to encode a query for this index, and which shards it has.

    Args:
        model, max_length, precision: of the encoder. dimension: of the vectors. store: name in STORES.
        factory: ``faiss.index_factory`` string. shards: documents of each shard, in corpus order.
    """

    model: str
    dimension: int
    store: str
    factory: str
    max_length: int | None
    precision: Precision
    shards: tuple[int, ...]

    @property
    def offsets(self) -> list[int]:
        """Position in the corpus of the first document of each shard."""
        return [sum(self.shards[:shard]) for shard in range(len(self.shards))]

    @classmethod
    def read(cls, folder: Path) -> "IndexInfo":
        """Of a finished index folder.

        Raises:
            ranker.manifest.StageError: where the stage `index` has not finished.
        """
        read_manifest(folder)
        plain = json.loads((folder / INDEX_FILE).read_text("utf-8"))
        return cls(**{**plain, "shards": tuple(plain["shards"])})


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
    heap = faiss.ResultHeap(len(scores[0]), k, keep_max=True)
    for shard_keys, shard_scores in zip(keys, scores, strict=True):
        if shard_keys.shape[1]:
            heap.add_result(np.ascontiguousarray(shard_scores), np.ascontiguousarray(shard_keys))
    merged_keys, merged_scores = heap.I.copy(), heap.D.copy()
    merged_scores[merged_keys < 0] = -np.inf
    # The heap sorts by score alone; ties would depend on how the corpus was cut.
    order = np.lexsort((np.where(merged_keys < 0, np.iinfo(np.int64).max, merged_keys), -merged_scores), axis=-1)
    return np.take_along_axis(merged_keys, order, 1), np.take_along_axis(merged_scores, order, 1)


def search_vectors(folder: Path, vectors: Vectors, k: int) -> tuple[list[list[str]], list[list[float]]]:
    """Nearest documents of query vectors (q, d) in this process: ids and scores a query, best first."""
    info = IndexInfo.read(folder)
    found = [search_shard(folder, info.store, shard, vectors, k) for shard in range(len(info.shards))]
    return name_found(found, info, k)


def search_shard(folder: Path, store: str, shard: int, vectors: Vectors, k: int) -> Found:
    """Keys and scores of one shard, and the ids behind its keys."""
    opened = STORES[store].load(shard_folder(folder, shard))
    if not isinstance(opened, FaissStore):
        raise TypeError(f"sharded search needs a faiss store, not {store!r}")
    keys, scores = opened.search_keys(vectors, k)
    return keys, scores, opened.ids


def name_found(found: list[Found], info: IndexInfo, k: int) -> tuple[list[list[str]], list[list[float]]]:
    """Ids and scores a query, best first, from what each shard found."""
    shifted = [np.where(keys < 0, -1, keys + first) for (keys, _, _), first in zip(found, info.offsets, strict=True)]
    k = min(k, sum(info.shards))
    keys, scores = merge_shards(shifted, [scores for _, scores, _ in found], k)
    names = [str(identifier) for _, _, ids in found for identifier in ids]
    kept = [[key for key in row if key >= 0] for row in keys.tolist()]
    return [[names[key] for key in row] for row in kept], [
        row[: len(ids)] for row, ids in zip(scores.tolist(), kept, strict=True)
    ]
