"""FAISS in this process: any kind of index that ``faiss.index_factory`` makes, under string ids."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.manifest import write_json
from ranker.retrieval.stores.base import (
    STORES,
    StoreError,
    Vectors,
    check_pairs,
    checked,
    first_line,
    whole,
    write_whole,
)
from ranker.retrieval.stores.faiss_kinds import innermost, keeps_vectors, search_options, tune, with_keys

Keys = NDArray[np.int64]

# A filter that leaves no more than this is searched vector by vector, exactly: a graph loses its way among so few.
FEW = 10_000
# Vectors that are only marked as removed before the index is built again from the rest: at least this many, and half.
DEAD = 1000


@STORES.register("faiss")
class FaissStore:
    """A FAISS index with string ids.

    A kind that cannot remove (HNSW) keeps removed vectors out of its answers, and is built again when half are such.

    Args:
        dimension: of the vectors. factory: ``faiss.index_factory`` string, inner product. An index that needs training
            is trained on the first vectors that are added.
        nprobe: cells of an IVF index that a query looks into. ef_search: of an HNSW index. None: FAISS's own.

    Raises:
        StoreError: on a factory string that FAISS refuses, or an option that this kind of index does not have.
    """

    shared = False
    settles_s = 0.0

    def __init__(
        self, dimension: int, factory: str = "Flat", *, nprobe: int | None = None, ef_search: int | None = None
    ) -> None:
        try:
            self._index = with_keys(faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT))
        except RuntimeError as error:
            raise StoreError(
                f"index.factory {factory!r}: not a faiss.index_factory string for dimension {dimension} "
                f"({first_line(error)}); such as Flat, HNSW32, IVF256,Flat"
            ) from error
        self.dimension, self.factory, self.options = dimension, factory, {"nprobe": nprobe, "ef_search": ef_search}
        tune(self._index, factory, nprobe, ef_search)
        self.lacks: frozenset[str] = frozenset() if keeps_vectors(self._index) else frozenset({"vectors"})
        self._ids: list[str | None] = []  # by FAISS key; None where the vector was removed
        self._keys: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def is_trained(self) -> bool:
        """False where the first vectors that are added train the index, which should then be many."""
        return bool(self._index.is_trained)

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """See :class:`Store`.

        Raises:
            StoreError: on another dimension, on ids that do not pair up with vectors, or too few to train on.
        """
        vectors = checked(vectors, self.dimension)
        check_pairs(ids, vectors)
        if not len(ids):
            return
        if not self._index.is_trained:
            try:
                self._index.train(vectors)
            except RuntimeError as error:
                raise StoreError(
                    f"index.factory {self.factory!r} cannot be trained on {len(vectors)} vectors "
                    f"({first_line(error)}); use Flat or HNSW32, or fewer cells"
                ) from error
        self.remove(ids)
        keys = np.arange(len(self._ids), len(self._ids) + len(ids), dtype=np.int64)
        self._index.add_with_ids(vectors, keys)
        self._keys.update(zip(ids, keys.tolist(), strict=True))
        self._ids.extend(ids)

    def remove(self, ids: Sequence[str]) -> None:
        """See :class:`Store`."""
        found = {identifier: self._keys[identifier] for identifier in ids if identifier in self._keys}
        if not found:
            return
        with suppress(RuntimeError):  # a kind that cannot: the vectors stay, and are never found again
            self._index.remove_ids(np.asarray(sorted(found.values()), dtype=np.int64))
        for identifier, key in found.items():
            self._ids[key] = None
            del self._keys[identifier]
        if self._dead > max(DEAD, len(self)) and not self.lacks:
            self._rebuild()

    @property
    def _dead(self) -> int:
        return int(self._index.ntotal) - len(self)

    def _rebuild(self) -> None:
        fresh = FaissStore(self.dimension, self.factory, **self.options)
        ids = list(self._keys)
        fresh.add(ids, self.vectors(ids))
        self._index, self._ids, self._keys = fresh._index, fresh._ids, fresh._keys

    def search(self, vectors: Vectors, k: int, among: Sequence[str] | None = None) -> tuple[list[list[str]], Vectors]:
        """See :class:`Store`. An approximate index that finds fewer gives shorter lists and scores of -inf."""
        allowed = None
        if among is not None:
            allowed = np.array([self._keys[one] for one in among if one in self._keys], dtype=np.int64)
        keys, scores = self.search_keys(vectors, k, allowed)
        ids = [[str(self._ids[key]) for key in found if key >= 0] for found in keys.tolist()]
        return ids, scores

    def search_keys(self, vectors: Vectors, k: int, allowed: Keys | None = None) -> tuple[Keys, Vectors]:
        """The same by key, the order in which ids were added: (q, k) with -1 and -inf where fewer were found."""
        vectors = checked(vectors, self.dimension)
        k = min(k, len(self) if allowed is None else len(allowed))
        if k < 1 or not len(vectors):
            return np.zeros((len(vectors), 0), dtype=np.int64), np.zeros((len(vectors), 0), dtype=np.float32)
        if allowed is not None and len(allowed) <= FEW and not self.lacks:
            return self._search_few(vectors, k, np.sort(allowed))
        if allowed is None and not self._dead:
            scores, keys = self._index.search(vectors, k)
        else:
            scores, keys = self._search_some(vectors, k, allowed)
        scores[keys < 0] = -np.inf
        return keys, scores

    def _search_few(self, vectors: Vectors, k: int, keys: Keys) -> tuple[Keys, Vectors]:
        scores = vectors @ self._reconstructed(keys).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return keys[best], np.take_along_axis(scores, best, axis=1)

    def _search_some(self, vectors: Vectors, k: int, allowed: Keys | None) -> tuple[Vectors, Keys]:
        if allowed is None:
            allowed = np.fromiter(self._keys.values(), dtype=np.int64, count=len(self))
        mask = np.zeros(len(self._ids), dtype=bool)
        mask[allowed] = True
        bitmap: Any = faiss.IDSelectorBitmap  # its stubs are of C++, its wrapper takes the bits as they are
        bits = np.packbits(mask, bitorder="little")
        selector = bitmap(bits)
        try:
            return self._index.search(vectors, k, params=search_options(self._index, selector))
        except (RuntimeError, TypeError, AssertionError):  # this kind searches all or nothing
            return self._search_more(vectors, k, mask)

    def _search_more(self, vectors: Vectors, k: int, mask: NDArray[np.bool_]) -> tuple[Vectors, Keys]:
        total, wide = int(self._index.ntotal), 4 * k
        while True:
            scores, keys = self._index.search(vectors, min(wide, total))
            fits = (keys >= 0) & mask[keys]
            if wide >= total or (fits.sum(axis=1) >= k).all():
                break
            wide *= 4
        order = np.argsort(~fits, axis=1, kind="stable")[:, :k]  # those that fit first, in their order
        kept = np.take_along_axis(fits, order, axis=1)
        found = np.where(kept, np.take_along_axis(keys, order, axis=1), -1)
        return np.take_along_axis(scores, order, axis=1), found

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """See :class:`Store`. A quantised index gives what it kept of them."""
        unknown = next((one for one in ids if one not in self._keys), None)
        if unknown is not None or self.lacks:
            what = f"{unknown!r} is not there" if unknown is not None else "its vectors cannot be read back"
            raise StoreError(f"store faiss ({self.factory}): {what}")
        return self._reconstructed(np.array([self._keys[one] for one in ids], dtype=np.int64))

    def _reconstructed(self, keys: Keys) -> Vectors:
        flat = self.flat_vectors()
        if flat is not None:
            return np.asarray(flat[keys], dtype=np.float32)
        if not len(keys):
            return np.zeros((0, self.dimension), dtype=np.float32)
        return np.stack([self._index.reconstruct(int(key)) for key in keys])

    def known(self) -> set[str]:
        """See :class:`Store`."""
        return set(self._keys)

    def flat_vectors(self) -> Vectors | None:
        """The vectors (n, d) by key as they lie in memory; None where they are not kept as such and in order.

        The array is good for as long as the store is.
        """
        inner = faiss.downcast_index(self._index.index) if isinstance(self._index, faiss.IndexIDMap2) else None
        if not isinstance(inner, faiss.IndexFlat) or len(self._keys) != len(self._ids):
            return None
        return faiss.rev_swig_ptr(inner.get_xb(), inner.ntotal * inner.d).reshape(inner.ntotal, inner.d)

    def key(self, identifier: str) -> int | None:
        """The key of an id; None where there is none."""
        return self._keys.get(identifier)

    @property
    def ids(self) -> list[str | None]:
        """The ids by key; None where one was removed."""
        return self._ids

    def save(self, folder: Path) -> None:
        """See :class:`Store`: ``vectors.faiss``, ``ids.parquet``, ``store.json``."""
        write_whole(folder, self._write)

    def _write(self, work: Path) -> None:
        faiss.write_index(self._index, str(work / "vectors.faiss"))
        pq.write_table(pa.table({"doc_id": pa.array(self._ids, pa.string())}), work / "ids.parquet")
        about: dict[str, Any] = {"store": "faiss", "dimension": self.dimension, "factory": self.factory}
        write_json(work / "store.json", {**about, **self.options})

    @classmethod
    def load(cls, folder: Path, *, nprobe: int | None = None, ef_search: int | None = None) -> "FaissStore":
        """See :class:`Store`. ``nprobe``, ``ef_search``: others than were saved.

        Raises:
            StoreError: where no whole store is.
        """
        folder = whole(folder)
        try:
            about = json.loads((folder / "store.json").read_text("utf-8"))
            options = {"nprobe": nprobe or about.get("nprobe"), "ef_search": ef_search or about.get("ef_search")}
            store = cls(about["dimension"], about["factory"], **options)
            store._index = faiss.read_index(str(folder / "vectors.faiss"))
            store._ids = pq.read_table(folder / "ids.parquet")["doc_id"].to_pylist()
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise StoreError(f"{folder}: no whole store ({first_line(error)}); build the index again") from error
        tune(store._index, store.factory, **options)
        store._keys = {identifier: key for key, identifier in enumerate(store._ids) if identifier is not None}
        if innermost(store._index).d < 1 or store._index.ntotal not in (len(store), len(store._ids)):
            raise StoreError(f"{folder}: {store._index.ntotal} vectors for {len(store)} ids; build the index again")
        return store

    def drop(self) -> None:
        """See :class:`Store`: nothing lies outside."""
