"""Vector stores behind one protocol, and the registry of them: to register is to sign up for the contract test."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.manifest import write_json
from ranker.registry import Registry

Vectors = NDArray[np.float32]


class StoreError(ValueError):
    """Vectors or files that do not fit a store; the message says what would."""


class Store(Protocol):
    """Vectors under string ids; scores are inner products, higher is nearer.

    Every store is made by ``Store(dimension, factory=...)``.
    """

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """File ``vectors`` (n, d) under ``ids``. An id that is there already gets the new vector."""
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Forget these ids; those that are not there are ignored."""
        ...

    def search(self, vectors: Vectors, k: int) -> tuple[list[list[str]], Vectors]:
        """The nearest ``k`` (or all, when fewer) ids a query, best first, and their scores (q, <=k)."""
        ...

    def __len__(self) -> int: ...

    def save(self, folder: Path) -> None:
        """Write everything into ``folder``, whole or not at all."""
        ...

    @classmethod
    def load(cls, folder: Path) -> "Store":
        """The store that :meth:`save` wrote."""
        ...


class StoreClass(Protocol):
    """What the registry holds: something that makes or loads a store."""

    def __call__(self, dimension: int, factory: str = "Flat") -> Store:
        """An empty store."""
        ...

    def load(self, folder: Path) -> Store:
        """The store saved in ``folder``."""
        ...


STORES: Registry[StoreClass] = Registry("vector store")


@STORES.register("faiss")
class FaissStore:
    """A FAISS index with string ids.

    Args:
        dimension: of the vectors. factory: ``faiss.index_factory`` string, inner product. An index that needs training
            is trained on the first vectors that are added.

    Raises:
        StoreError: on a factory string that FAISS refuses.
    """

    def __init__(self, dimension: int, factory: str = "Flat") -> None:
        try:
            self._index = _with_keys(faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT))
        except RuntimeError as error:
            raise StoreError(
                f"index.factory {factory!r}: not a faiss.index_factory string for dimension {dimension} "
                f"({_first_line(error)}); such as Flat, HNSW32, IVF256,Flat"
            ) from error
        self.dimension, self.factory = dimension, factory
        self._ids: list[str | None] = []  # by FAISS key; None where the vector was removed
        self._keys: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """See :class:`Store`.

        Raises:
            StoreError: on another dimension, on ids that do not pair up with vectors, or too few to train on.
        """
        vectors = _checked(vectors, self.dimension)
        if len(ids) != len(vectors) or len(set(ids)) != len(ids):
            raise StoreError(f"{len(ids)} ids ({len(set(ids))} different) for {len(vectors)} vectors; give each one")
        if not len(ids):
            return
        self.remove(ids)
        if not self._index.is_trained:
            try:
                self._index.train(vectors)
            except RuntimeError as error:
                raise StoreError(
                    f"index.factory {self.factory!r} cannot be trained on {len(vectors)} vectors "
                    f"({_first_line(error)}); use Flat or HNSW32, or fewer cells"
                ) from error
        keys = np.arange(len(self._ids), len(self._ids) + len(ids), dtype=np.int64)
        self._index.add_with_ids(vectors, keys)
        self._keys.update(zip(ids, keys.tolist(), strict=True))
        self._ids.extend(ids)

    def remove(self, ids: Sequence[str]) -> None:
        """See :class:`Store`. An index that cannot forget (HNSW) raises StoreError."""
        found = {identifier: self._keys[identifier] for identifier in ids if identifier in self._keys}
        if not found:
            return
        try:
            self._index.remove_ids(np.asarray(sorted(found.values()), dtype=np.int64))
        except RuntimeError as error:
            raise StoreError(
                f"index.factory {self.factory!r} cannot remove or replace vectors; build the index again, or use Flat"
            ) from error
        for identifier, key in found.items():
            self._ids[key] = None
            del self._keys[identifier]

    def search(self, vectors: Vectors, k: int) -> tuple[list[list[str]], Vectors]:
        """See :class:`Store`. An approximate index that finds fewer gives shorter lists and scores of -inf."""
        keys, scores = self.search_keys(vectors, k)
        ids = [[str(self._ids[key]) for key in found if key >= 0] for found in keys.tolist()]
        return ids, scores

    def search_keys(self, vectors: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
        """The same by key, the order in which ids were added: (q, k) with -1 and -inf where fewer were found."""
        vectors = _checked(vectors, self.dimension)
        k = min(k, len(self))
        if k < 1 or not len(vectors):
            return np.zeros((len(vectors), 0), dtype=np.int64), np.zeros((len(vectors), 0), dtype=np.float32)
        scores, keys = self._index.search(vectors, k)
        scores[keys < 0] = -np.inf
        return keys, scores

    def flat_vectors(self) -> Vectors | None:
        """The vectors (n, d) by key as they lie in memory; None where they are not kept as such and in order.

        The array is good for as long as the store is.
        """
        inner = faiss.downcast_index(self._index.index) if isinstance(self._index, faiss.IndexIDMap2) else None
        if not isinstance(inner, faiss.IndexFlat) or len(self._keys) != len(self._ids):
            return None
        return faiss.rev_swig_ptr(inner.get_xb(), inner.ntotal * inner.d).reshape(inner.ntotal, inner.d)

    @property
    def ids(self) -> list[str | None]:
        """The ids by key; None where one was removed."""
        return self._ids

    def save(self, folder: Path) -> None:
        """See :class:`Store`: ``vectors.faiss``, ``ids.parquet``, ``store.json``."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        faiss.write_index(self._index, str(work / "vectors.faiss"))
        pq.write_table(pa.table({"doc_id": pa.array(self._ids, pa.string())}), work / "ids.parquet")
        write_json(work / "store.json", {"store": "faiss", "dimension": self.dimension, "factory": self.factory})
        if folder.exists():  # a folder is not replaced by one rename; the old one waits under another name
            old = folder.with_name(f".{folder.name}.previous")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            work.rename(folder)
            shutil.rmtree(old)
        else:
            work.rename(folder)

    @classmethod
    def load(cls, folder: Path) -> "FaissStore":
        """See :class:`Store`.

        Raises:
            StoreError: where no whole store is.
        """
        try:
            about = json.loads((folder / "store.json").read_text("utf-8"))
            store = cls(about["dimension"], about["factory"])
            store._index = faiss.read_index(str(folder / "vectors.faiss"))
            store._ids = pq.read_table(folder / "ids.parquet")["doc_id"].to_pylist()
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise StoreError(f"{folder}: no whole store ({_first_line(error)}); build the index again") from error
        store._keys = {identifier: key for key, identifier in enumerate(store._ids) if identifier is not None}
        if store._index.ntotal != len(store):
            raise StoreError(f"{folder}: {store._index.ntotal} vectors for {len(store)} ids; build the index again")
        return store


def _with_keys(index: Any) -> Any:
    """The index itself when it files vectors under keys of their own (IVF), else wrapped so that it does."""
    inner = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    if isinstance(inner, faiss.IndexIVF):
        return index
    wrapped = faiss.IndexIDMap2(index)
    index.this.disown()  # the wrapper frees it
    wrapped.own_fields = True
    return wrapped


def _checked(vectors: Vectors, dimension: int) -> Vectors:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise StoreError(
            f"vectors of shape {vectors.shape} for a store of dimension {dimension}; "
            "encode them with the model that the index was built with"
        )
    if not np.isfinite(vectors).all():
        raise StoreError("vectors hold NaN or infinity; encode again in fp32")
    return vectors


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.rpartition(": ")[2].splitlines()[0][:200] if text else type(error).__name__
