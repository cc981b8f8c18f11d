"""Where a pipeline's vectors stand: it makes empty stores, and knows which of them a saved folder stands on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranker.retrieval.stores import STORES, Store, StoreError


@dataclass(frozen=True)
class Standing:
    """What a folder stands on since it was last saved or loaded here: a store, and the generation that names it."""

    store: Store
    generation: str


class Shelf:
    """The stores of one pipeline. A collection in a database belongs to one folder: no save into another touches it.

    Args:
        name: in STORES. options: of the store.

    Raises:
        UnknownNameError: on an unknown store. StoreError: on a collection that exists.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        if options.get("existing") is not None:
            raise StoreError(
                f"store {name!r}: a pipeline makes, replaces and removes collections of its own, and does not take "
                f"{options['existing']!r}; give collection= what their names shall start with, or load a saved pipeline"
            )
        self._make, self._name, self._options = STORES[name], name, dict(options)
        self._folders: dict[Path, Standing] = {}

    def empty(self, dimension: int) -> Store:
        """A new store.

        Raises:
            StoreError: on options that it does not take, or a database that is not there.
        """
        try:
            return self._make(dimension, **self._options)
        except TypeError as error:
            raise StoreError(f"store {self._name!r} does not take {self._options}: {error}") from error

    def at(self, folder: Path) -> Standing | None:
        """What a folder stands on, as far as is known here."""
        return self._folders.get(folder.resolve())

    def is_saved(self, store: Store) -> bool:
        """Whether a folder stands on it."""
        return any(standing.store is store for standing in self._folders.values())

    def put(self, folder: Path, store: Store, generation: str) -> Store | None:
        """Note what a folder stands on from now on; the store that it stood on before, if that was another."""
        before = self.at(folder)
        if store.shared:
            self._folders[folder.resolve()] = Standing(store, generation)
        return before.store if before is not None and before.store is not store else None
