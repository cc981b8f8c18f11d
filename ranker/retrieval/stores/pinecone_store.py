"""Pinecone: a namespace of an index that is there already."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ranker.retrieval.stores.base import STORES, StoreError, Vectors, needed
from ranker.retrieval.stores.collection_store import CollectionStore, Found, batches

# Of one request of the API: its body, the ids of a fetch, which stand in the address, and of a deletion.
BODY_BYTES = 1_500_000
FLOAT_BYTES = 24
FETCHED, DELETED = 100, 1000


@STORES.register("pinecone")
class PineconeStore(CollectionStore):
    """Vectors in a namespace of a Pinecone index. Needs ``pip install 'ranker[pinecone]'``.

    Pinecone shows what was written after some seconds; until then a search may miss it.

    Args:
        dimension: of the vectors. index: name of an index; its metric must be dotproduct or cosine.
        host: address of the index, or of Pinecone itself where ``index`` names one; None: Pinecone's own.
        api_key: None: the environment's PINECONE_API_KEY. Never saved.
        collection: what the namespace's name starts with. existing: a whole name.

    Raises:
        StoreError: neither index nor host, no key, no such index, another dimension or metric.
    """

    store = "pinecone"
    read_batch = 10_000  # values of an $in
    most_neighbours = 10_000
    settles_s = 30.0  # nothing is promised; it takes some seconds

    def __init__(
        self,
        dimension: int,
        *,
        index: str | None = None,
        host: str | None = None,
        api_key: str | None = None,
        collection: str = "ranker",
        existing: str | None = None,
    ) -> None:
        if index is None and host is None:
            raise StoreError("store 'pinecone' needs store_options={'index': NAME}, an index that is there already")
        self._api_key = api_key
        place = {name: value for name, value in (("index", index), ("host", host)) if value is not None}
        super().__init__(dimension, place, collection, existing)

    def _open(self, existing: bool) -> None:
        pinecone = needed("pinecone", "pinecone", "pinecone")
        name, host = self.place.get("index"), self.place.get("host")
        client = pinecone.Pinecone(api_key=self._api_key, host=host if name else None)
        if name:
            about = client.describe_index(name)
            if str(about.metric) not in ("dotproduct", "cosine"):
                raise StoreError(f"store 'pinecone': index {name!r} has metric {about.metric}; dotproduct is needed")
            self._expect(about.dimension)
            host = about.host
        self._index: Any = client.Index(host=host)
        self._expect(self._index.describe_index_stats().dimension)

    def _create(self) -> None:
        """A namespace is there with its first vector."""

    def _count(self) -> int:
        space = self._index.describe_index_stats().namespaces.get(self.collection)
        return 0 if space is None else int(space.vector_count)

    def _write(self, ids: list[str], vectors: Vectors) -> None:
        # The id lies in the metadata too: a filter cannot ask for ids.
        rows = list(zip(ids, vectors.tolist(), [{"id": one} for one in ids], strict=True))
        for some in batches(rows, max(1, BODY_BYTES // (FLOAT_BYTES * self.dimension + 200))):
            self._index.upsert(vectors=some, namespace=self.collection)

    def _delete(self, ids: list[str]) -> None:
        for some in batches(ids, DELETED):
            self._index.delete(ids=some, namespace=self.collection)

    def _query(self, vectors: Vectors, k: int, among: list[str] | None) -> Found:
        only = None if among is None else {"id": {"$in": among}}
        answers = [
            self._index.query(vector=vector, top_k=k, namespace=self.collection, filter=only)
            for vector in vectors.tolist()
        ]
        return [[(match.id, match.score) for match in answer.matches] for answer in answers]

    def _read(self, ids: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for some in batches(ids, FETCHED):
            vectors = self._index.fetch(ids=some, namespace=self.collection).vectors
            found.update({one: vector.values for one, vector in vectors.items()})
        return found

    def _list(self) -> set[str]:
        pages = self._index.list(namespace=self.collection)
        return {item if isinstance(item, str) else item.id for page in pages for item in _items(page)}

    def _dropper(self) -> Callable[[], Any]:
        return partial(self._index.delete, delete_all=True, namespace=self.collection)


def _items(page: Any) -> Any:
    return getattr(page, "vectors", page)  # a list of ids in older clients
