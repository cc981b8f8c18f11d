"""What every vector store does, the registry of stores, and what they share: checks, and folders written whole."""

import shutil
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ranker.registry import Registry

Vectors = NDArray[np.float32]

# What a store may lack. remove: vectors cannot be removed or replaced; vectors: those that were filed cannot be read.
FEATURES = ("remove", "vectors")


class StoreError(ValueError):
    """Vectors, options or files that do not fit a store; the message says what would."""


class Store(Protocol):
    """Vectors under string ids; scores are inner products, higher is nearer.

    Every store is made by ``Store(dimension, **options)``; what it cannot do stands in ``lacks`` from then on.

    Args:
        dimension: of the vectors. lacks: those of FEATURES that this store, with these options, does not have.
        shared: True where the vectors lie outside of what :meth:`save` writes: in a database with a path or address.
        settles_s: seconds after which what was written is seen for certain; 0 where it is at once.
    """

    dimension: int
    lacks: frozenset[str]
    shared: bool
    settles_s: float

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """File ``vectors`` (n, d) under ``ids``. An id that is there already gets the new vector."""
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Forget these ids; those that are not there are ignored."""
        ...

    def search(self, vectors: Vectors, k: int, among: Sequence[str] | None = None) -> tuple[list[list[str]], Vectors]:
        """The nearest ``k`` (or all, when fewer) ids a query, best first, and their scores (q, <=k).

        A list that is shorter than others has scores of -inf at its end. ``among``: only these ids may be found;
        None: all.
        """
        ...

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The vectors (n, d) filed under these ids, in their order. StoreError where one is not there."""
        ...

    def known(self) -> set[str]:
        """All ids."""
        ...

    def __len__(self) -> int: ...

    def save(self, folder: Path) -> None:
        """Write everything into ``folder``, whole or not at all; of a shared store, where it is."""
        ...

    @classmethod
    def load(cls, folder: Path, *_: Any, **options: Any) -> "Store":
        """The store that :meth:`save` wrote. ``options``: what is not saved, such as a key."""
        ...

    def drop(self) -> None:
        """Free what a shared store keeps for these vectors; nothing can be asked afterwards."""
        ...


class StoreClass(Protocol):
    """What the registry holds: something that makes or loads a store."""

    def __call__(self, dimension: int, *_: Any, **options: Any) -> Store:
        """An empty store."""
        ...

    def load(self, folder: Path, *_: Any, **options: Any) -> Store:
        """The store saved in ``folder``."""
        ...


STORES: Registry[StoreClass] = Registry("vector store")


def checked(vectors: Vectors, dimension: int) -> Vectors:
    """float32 (n, dimension), contiguous.

    Raises:
        StoreError: on another shape, NaN or infinity.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise StoreError(
            f"vectors of shape {vectors.shape} for a store of dimension {dimension}; "
            "encode them with the model that the index was built with"
        )
    if not np.isfinite(vectors).all():
        raise StoreError("vectors hold NaN or infinity; encode again in fp32")
    return vectors


def check_pairs(ids: Sequence[str], vectors: Vectors) -> None:
    """Refuse ids that do not pair up with vectors."""
    if len(ids) != len(vectors) or len(set(ids)) != len(ids):
        raise StoreError(f"{len(ids)} ids ({len(set(ids))} different) for {len(vectors)} vectors; give each one")


def needed(module: str, store: str, extra: str) -> Any:
    """The package behind a store.

    Raises:
        StoreError: where it is not installed, with the command that adds it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise StoreError(f"store {store!r} needs a package: pip install 'ranker[{extra}]' ({error})") from error


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder beside ``folder`` and give it that name; a folder that was there is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work, old = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.previous")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    write(work)
    if not folder.exists():
        work.rename(folder)
    else:  # a folder is not replaced by one rename; the old one waits under another name
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        work.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def whole(folder: Path) -> Path:
    """Where the last whole folder lies that :func:`write_whole` wrote, also after a kill between its two renames."""
    old = folder.with_name(f".{folder.name}.previous")
    return old if old.is_dir() and not folder.exists() else folder


def absolute(path: str | Path) -> str:
    """A folder as another working directory understands it; an address as it is."""
    return str(path) if "://" in str(path) else str(Path(path).expanduser().absolute())


def as_lists(found: Sequence[Sequence[tuple[str, float]]]) -> tuple[list[list[str]], Vectors]:
    """Lists of (id, score) as :meth:`Store.search` gives them: best first, padded with -inf."""
    best = [sorted(pairs, key=lambda pair: -pair[1]) for pairs in found]
    longest = max(map(len, best), default=0)
    scores = np.full((len(best), longest), -np.inf, dtype=np.float32)
    for row, pairs in enumerate(best):
        scores[row, : len(pairs)] = [score for _, score in pairs]
    return [[identifier for identifier, _ in pairs] for pairs in best], scores


def first_line(error: Exception) -> str:
    """What a library says, without its traceback."""
    text = str(error).strip()
    return text.rpartition(": ")[2].splitlines()[0][:200] if text else type(error).__name__
