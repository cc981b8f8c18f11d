"""Qdrant: a server, or its client's own search in memory."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from ranker.retrieval.stores.base import STORES, Vectors, needed
from ranker.retrieval.stores.collection_store import CollectionStore, Found


@STORES.register("qdrant")
class QdrantStore(CollectionStore):
    """A Qdrant collection, inner product. Needs ``pip install 'ranker[qdrant]'``.

    The client's folders are not offered: it keeps pickled objects in them.

    Args:
        dimension: of the vectors. url: of a server; None: in memory. api_key: of the server; never saved.
        collection: what the collection's name starts with. existing: a whole name.
    """

    store = "qdrant"

    def __init__(
        self,
        dimension: int,
        *,
        url: str | None = None,
        api_key: str | None = None,
        collection: str = "ranker",
        existing: str | None = None,
    ) -> None:
        self._api_key = api_key
        super().__init__(dimension, None if url is None else {"url": url}, collection, existing)

    def _open(self, existing: bool) -> None:
        qdrant_client = needed("qdrant_client", "qdrant", "qdrant")
        self._models = qdrant_client.models
        if self.shared:
            self._client: Any = qdrant_client.QdrantClient(url=self.place["url"], api_key=self._api_key)
        else:
            self._client = qdrant_client.QdrantClient(":memory:")
        if existing:
            self._expect(self._client.get_collection(self.collection).config.params.vectors.size)
        elif self.shared:
            self._client.get_collections()  # it connects with the first question

    def _create(self) -> None:
        vectors = self._models.VectorParams(size=self.dimension, distance=self._models.Distance.DOT)
        self._client.create_collection(self.collection, vectors_config=vectors)

    def _count(self) -> int:
        return int(self._client.count(self.collection, exact=True).count)

    def _write(self, ids: list[str], vectors: Vectors) -> None:
        payloads = [{"id": one} for one in ids]
        batch = self._models.Batch(ids=_points(ids), vectors=vectors.tolist(), payloads=payloads)
        self._client.upsert(self.collection, batch, wait=True)

    def _delete(self, ids: list[str]) -> None:
        self._client.delete(self.collection, self._models.PointIdsList(points=_points(ids)), wait=True)

    def _query(self, vectors: Vectors, k: int, among: list[str] | None) -> Found:
        models, only = self._models, None
        if among is not None:
            only = models.Filter(must=[models.HasIdCondition(has_id=_points(among))])
        asked = [
            models.QueryRequest(query=vector, limit=k, filter=only, with_payload=True) for vector in vectors.tolist()
        ]
        answers = self._client.query_batch_points(self.collection, asked)
        return [[(point.payload["id"], point.score) for point in answer.points] for answer in answers]

    def _read(self, ids: list[str]) -> dict[str, Any]:
        points = self._client.retrieve(self.collection, _points(ids), with_vectors=True)
        return {point.payload["id"]: point.vector for point in points}

    def _list(self) -> set[str]:
        found, offset = set(), None
        while True:
            points, offset = self._client.scroll(self.collection, limit=10_000, offset=offset)
            found |= {point.payload["id"] for point in points}
            if offset is None:
                return found

    def _dropper(self) -> Callable[[], Any]:
        return partial(self._client.delete_collection, self.collection)


def _points(ids: Iterable[str]) -> list[str]:
    # A point's id is a number or a UUID; the id itself lies in the payload.
    return [str(uuid5(NAMESPACE_URL, one)) for one in ids]
