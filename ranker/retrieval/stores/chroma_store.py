"""Chroma in this process, in memory or in a folder that other programs can open with ``chromadb`` too."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ranker.retrieval.stores.base import STORES, Vectors, absolute, needed
from ranker.retrieval.stores.collection_store import CollectionStore, Found


@STORES.register("chroma")
class ChromaStore(CollectionStore):
    """A Chroma collection (HNSW, inner product). Needs ``pip install 'ranker[chroma]'``.

    Args:
        dimension: of the vectors. path: folder of a persistent client; None: in memory.
        collection: what the collection's name starts with. existing: a whole name.
        ef_search: how widely the graph is searched.
    """

    store = "chroma"

    def __init__(
        self,
        dimension: int,
        *,
        path: str | None = None,
        collection: str = "ranker",
        existing: str | None = None,
        ef_search: int = 200,
    ) -> None:
        self._ef_search = ef_search
        super().__init__(dimension, None if path is None else {"path": absolute(path)}, collection, existing)

    def _open(self, existing: bool) -> None:
        chromadb = needed("chromadb", "chroma", "chroma")
        settings = chromadb.config.Settings(anonymized_telemetry=False)
        if self.shared:
            self._client = chromadb.PersistentClient(self.place["path"], settings=settings)
        else:
            self._client = chromadb.EphemeralClient(settings=settings)
        if existing:
            self._collection: Any = self._client.get_collection(self.collection, embedding_function=None)
            self._expect((self._collection.metadata or {}).get("dimension"))

    def _create(self) -> None:
        self._collection = self._client.create_collection(
            self.collection,
            configuration={"hnsw": {"space": "ip", "ef_search": self._ef_search, "ef_construction": 200}},
            metadata={"dimension": self.dimension},
            embedding_function=None,
        )

    def _count(self) -> int:
        return int(self._collection.count())

    def _write(self, ids: list[str], vectors: Vectors) -> None:
        self._collection.upsert(ids=ids, embeddings=vectors)

    def _delete(self, ids: list[str]) -> None:
        there = self._there(ids)  # it warns of others, one by one
        if there:
            self._collection.delete(ids=there)

    def _query(self, vectors: Vectors, k: int, among: list[str] | None) -> Found:
        if among is not None:
            among = self._there(among)  # it fails where one is not there
        k = min(k, self._count() if among is None else len(among))
        if k < 1:
            return [[] for _ in vectors]
        found = self._collection.query(query_embeddings=vectors, n_results=k, ids=among, include=["distances"])
        return [
            [(one, 1 - distance) for one, distance in zip(ids, distances, strict=True)]
            for ids, distances in zip(found["ids"], found["distances"], strict=True)
        ]

    def _there(self, ids: list[str]) -> list[str]:
        return list(self._collection.get(ids=ids, include=[])["ids"])

    def _read(self, ids: list[str]) -> dict[str, Any]:
        found = self._collection.get(ids=ids, include=["embeddings"])
        return dict(zip(found["ids"], found["embeddings"], strict=True))

    def _list(self) -> set[str]:
        return set(self._collection.get(include=[])["ids"])

    def _dropper(self) -> Callable[[], Any]:
        return partial(self._client.delete_collection, self.collection)
