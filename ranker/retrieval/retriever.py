"""Search an index folder in one process, without Ray: what a service and a notebook use."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranker.retrieval.encoder import Encoder
from ranker.retrieval.shards import IndexInfo, merge_shards, search_store, shard_folder
from ranker.retrieval.stores import STORES, FaissStore


class Retriever:
    """The documents nearest to a query, from the folder of stage `index`.

    Args:
        index_folder: a finished index. device: of the encoder; None: an accelerator when there is one.
        safetensors_only: refuse an encoder whose weights are pickles, also one by hub id.

    Raises:
        ranker.manifest.StageError: where the index is not finished.
    """

    def __init__(self, index_folder: str | Path, device: str | None = None, safetensors_only: bool = False) -> None:
        folder = Path(index_folder)
        self.info = IndexInfo.read(folder)
        self.encoder = Encoder(
            self.info.model, self.info.max_length, self.info.precision, device, safetensors_only=safetensors_only
        )
        self._stores: list[FaissStore] = []
        for shard in range(len(self.info.shards)):
            store = STORES[self.info.store].load(shard_folder(folder, shard))
            if not isinstance(store, FaissStore):
                raise TypeError(f"{folder}: store {self.info.store!r} is not searched by shards")
            self._stores.append(store)
        self._ids = [str(identifier) for store in self._stores for identifier in store.ids]

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> Sequence[str]:
        """doc_ids by position in the corpus."""
        return self._ids

    def position(self, doc_id: str) -> int | None:
        """Of a document in the corpus; None where it is not there."""
        found = [(store.key(doc_id), first) for store, first in zip(self._stores, self.info.offsets, strict=True)]
        return next((key + first for key, first in found if key is not None), None)

    def retrieve(self, queries: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        """For each query the best ``k`` (doc_id, cosine), best first; all documents when there are fewer."""
        keys, scores = self.nearest(self.encoder.encode_queries(queries), k)
        return [
            [(self._ids[key], score) for key, score in zip(row, values, strict=True) if key >= 0]
            for row, values in zip(keys.tolist(), scores.tolist(), strict=True)
        ]

    def nearest(self, vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions in the corpus and scores (q, <=k) of encoded queries, best first; -1 where fewer were found."""
        found = [search_store(store, vectors, k) for store in self._stores]
        shifted = [
            np.where(keys < 0, -1, keys + first) for (keys, _), first in zip(found, self.info.offsets, strict=True)
        ]
        return merge_shards(shifted, [scores for _, scores in found], min(k, len(self)))
