"""What stores that are a client of a database share: checks, batches, filters, and how they are saved."""

import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import uuid4
from weakref import finalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ranker.manifest import write_json
from ranker.retrieval.embeddings import as_column, as_matrix
from ranker.retrieval.stores.base import (
    StoreError,
    Vectors,
    as_lists,
    check_pairs,
    checked,
    first_line,
    whole,
    write_whole,
)

log = logging.getLogger(__name__)

T = TypeVar("T")
Found = list[list[tuple[str, float]]]
ABOUT, VECTORS = "store.json", "vectors.parquet"


class CollectionStore(ABC):
    """A collection of its own in a database.

    Without a place of its own (``shared`` False) it lies in memory, and saving writes its vectors. With one, saving
    writes where it is; each new store there is a new collection, so that a half-written one never takes the place
    of a good one. The collection is made when something is first written, and removed again with a store that is
    never saved.

    Args:
        dimension: of the vectors. place: where the database is, as constructor arguments that may be saved; None: in
            memory. collection: what the names of its collections start with. existing: the whole name of one that is
            there already.

    Raises:
        StoreError: where the database is not there, or its collection has another dimension.
    """

    store: ClassVar[str]
    lacks: frozenset[str] = frozenset()
    # Vectors written, ids asked for and neighbours found in one call, where the database has a limit.
    write_batch: ClassVar[int] = 1000
    read_batch: ClassVar[int] = 1000
    most_neighbours: ClassVar[int | None] = None
    # Seconds after which what was written is seen for certain.
    settles_s: float = 0.0

    def __init__(self, dimension: int, place: Mapping[str, Any] | None, collection: str, existing: str | None) -> None:
        self.dimension, self.place, self.prefix = dimension, dict(place or {}), collection
        self.shared = place is not None
        self.collection = existing or f"{collection}-{uuid4().hex[:12]}"
        self._made = existing is not None
        self._unsaved: finalize[..., Any] | None = None
        with self._told():
            self._open(self._made)

    @abstractmethod
    def _open(self, existing: bool) -> None:
        """Connect, so that a database that is not there is said; open what exists, its dimension by :meth:`_expect`."""

    @abstractmethod
    def _create(self) -> None:
        """Make the collection."""

    @abstractmethod
    def _write(self, ids: list[str], vectors: Vectors) -> None: ...

    @abstractmethod
    def _delete(self, ids: list[str]) -> None: ...

    @abstractmethod
    def _query(self, vectors: Vectors, k: int, among: list[str] | None) -> Found: ...

    @abstractmethod
    def _read(self, ids: list[str]) -> dict[str, Any]:
        """The vectors of those that are there, by id."""

    @abstractmethod
    def _list(self) -> set[str]: ...

    @abstractmethod
    def _count(self) -> int: ...

    @abstractmethod
    def _dropper(self) -> Callable[[], Any]:
        """What removes the collection from its database, without holding on to this store."""

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # each database has exceptions of its own
            raise StoreError(
                f"store {self.store!r}: collection {self.collection!r} cannot be opened at "
                f"{self.place or 'its place in memory'} ({type(error).__name__}: {first_line(error)})"
            ) from error

    def _make(self) -> None:
        if self._made:
            return
        with self._told():
            self._create()
        self._made = True
        self._unsaved = finalize(self, _leave, self._dropper(), self.collection, os.getpid())
        self._unsaved.atexit = self.shared

    def _expect(self, found: int | None) -> None:
        if found is not None and found != self.dimension:
            raise StoreError(
                f"store {self.store!r}: {self.collection!r} has dimension {found}, and the retriever's vectors have "
                f"{self.dimension}; use the model that it was made with, or another collection"
            )

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """See :class:`Store`."""
        vectors = checked(vectors, self.dimension)
        check_pairs(ids, vectors)
        if len(ids):
            self._make()
        for start in range(0, len(ids), self.write_batch):
            some = slice(start, start + self.write_batch)
            self._write(list(ids[some]), vectors[some])

    def remove(self, ids: Sequence[str]) -> None:
        """See :class:`Store`."""
        for some in batches(ids, self.read_batch) if self._made else ():
            self._delete(some)

    def search(self, vectors: Vectors, k: int, among: Sequence[str] | None = None) -> tuple[list[list[str]], Vectors]:
        """See :class:`Store`."""
        vectors = checked(vectors, self.dimension)
        k = min(k, k if among is None else len(among), self.most_neighbours or k)
        if k < 1 or not len(vectors) or not self._made:
            return [[] for _ in vectors], np.zeros((len(vectors), 0), dtype=np.float32)
        if among is None:
            return as_lists(self._query(vectors, k, None))
        best: Found = [[] for _ in vectors]
        for some in batches(among, self.read_batch):
            found = self._query(vectors, min(k, len(some)), some)
            best = [sorted([*a, *b], key=lambda pair: -pair[1])[:k] for a, b in zip(best, found, strict=True)]
        return as_lists(best)

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """See :class:`Store`."""
        found: dict[str, Any] = {}
        for some in batches(ids, self.read_batch) if self._made else ():
            found.update(self._read(some))
        missing = next((one for one in ids if one not in found), None)
        if missing is not None:
            raise StoreError(f"store {self.store!r}: {missing!r} is not in {self.collection!r}")
        return np.array([found[one] for one in ids], dtype=np.float32).reshape(len(ids), self.dimension)

    def known(self) -> set[str]:
        """See :class:`Store`."""
        return self._list() if self._made else set()

    def __len__(self) -> int:
        return self._count() if self._made else 0

    def drop(self) -> None:
        """See :class:`Store`."""
        if self._unsaved is not None:
            self._unsaved.detach()
        if self._made:
            _drop(self._dropper())
        self._made = False

    def save(self, folder: Path) -> None:
        """See :class:`Store`: ``store.json``, and ``vectors.parquet`` where the store lies in memory."""
        if self.shared:
            self._make()  # an empty one is a collection too

        def write(work: Path) -> None:
            about = {"store": self.store, "dimension": self.dimension, "prefix": self.prefix}
            if self.shared:
                about.update(place=self.place, collection=self.collection)
            else:
                ids = sorted(self.known())
                columns = {"id": pa.array(ids, pa.string()), "vector": as_column(self.vectors(ids))}
                pq.write_table(pa.table(columns), work / VECTORS)
            write_json(work / ABOUT, {**about, "size": len(self)})

        write_whole(folder, write)
        if self.shared and self._unsaved is not None:
            self._unsaved.detach()

    @classmethod
    def load(cls, folder: Path, **options: Any) -> "CollectionStore":
        """See :class:`Store`.

        Raises:
            StoreError: where no whole store is, or its collection is gone.
        """
        folder = whole(folder)
        try:
            about = json.loads((folder / ABOUT).read_text("utf-8"))
            place, dimension = about.get("place"), about["dimension"]
            table = None if place is not None else pq.read_table(folder / VECTORS)
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"{folder}: no whole store ({first_line(error)}); build the index again") from error
        options = {"collection": about["prefix"], **(place or {}), **options}
        if table is None:
            return cls(dimension, existing=about["collection"], **options)
        store = cls(dimension, **options)
        if table.num_rows:
            store.add(table["id"].to_pylist(), as_matrix(table["vector"]))
        return store


def _drop(drop: Callable[[], Any]) -> None:
    try:
        drop()
    except Exception as error:  # each database has exceptions of its own
        if "notfound" not in type(error).__name__.lower():
            raise


def _leave(drop: Callable[[], Any], collection: str, process: int) -> None:
    # Of a store that nothing holds any more; in a process that was forked it still belongs to the other one.
    if os.getpid() != process:
        return
    try:
        _drop(drop)
    except Exception as error:  # nobody is there to be told
        log.warning("collection %s was not saved and stays: %s", collection, first_line(error))


def batches(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """The items, ``size`` at a time."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
