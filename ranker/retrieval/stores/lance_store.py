"""LanceDB in this process, in memory, in a folder or in an object store."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa

from ranker.retrieval.embeddings import as_column, as_matrix
from ranker.retrieval.stores.base import STORES, Vectors, absolute, needed
from ranker.retrieval.stores.collection_store import CollectionStore, Found


@STORES.register("lancedb")
class LanceStore(CollectionStore):
    """A LanceDB table, searched exactly. Needs ``pip install 'ranker[lancedb]'``.

    Args:
        dimension: of the vectors. path: folder or address (``s3://...``) of the database; None: in memory.
        collection: what the table's name starts with. existing: a whole name.
    """

    store = "lancedb"

    def __init__(
        self, dimension: int, *, path: str | None = None, collection: str = "ranker", existing: str | None = None
    ) -> None:
        super().__init__(dimension, None if path is None else {"path": absolute(path)}, collection, existing)

    def _open(self, existing: bool) -> None:
        lancedb = needed("lancedb", "lancedb", "lancedb")
        self._database = lancedb.connect(self.place["path"] if self.shared else "memory://")
        if existing:
            self._table: Any = self._database.open_table(self.collection)
            self._expect(self._table.schema.field("vector").type.list_size)
        elif self.shared:
            self._database.list_tables(limit=1)  # an object store is first asked here

    def _create(self) -> None:
        kind = pa.list_(pa.float32(), self.dimension)
        schema = pa.schema([pa.field("id", pa.string()), pa.field("vector", kind)])
        self._table = self._database.create_table(self.collection, schema=schema)

    def _count(self) -> int:
        self._table.checkout_latest()  # a table shows what was there when it was opened, whatever others write
        return int(self._table.count_rows())

    def _write(self, ids: list[str], vectors: Vectors) -> None:
        rows = pa.table({"id": pa.array(ids, pa.string()), "vector": as_column(vectors)}).cast(self._table.schema)
        change = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        change.execute(rows)

    def _delete(self, ids: list[str]) -> None:
        self._table.delete(_among(ids))

    def _query(self, vectors: Vectors, k: int, among: list[str] | None) -> Found:
        return [self._query_one(vector, k, among) for vector in vectors]

    def _query_one(self, vector: Any, k: int, among: list[str] | None) -> list[tuple[str, float]]:
        query = self._table.search(vector).distance_type("dot").limit(k).select(["id", "_distance"])
        if among is not None:
            query = query.where(_among(among), prefilter=True)
        found = query.to_arrow()
        scores = [1 - distance for distance in found["_distance"].to_pylist()]
        return list(zip(found["id"].to_pylist(), scores, strict=True))

    def _read(self, ids: list[str]) -> dict[str, Any]:
        found = self._table.search().where(_among(ids)).limit(len(ids)).to_arrow()
        return dict(zip(found["id"].to_pylist(), as_matrix(found["vector"]), strict=True))

    def _list(self) -> set[str]:
        return set(self._table.search().select(["id"]).limit(max(1, self._count())).to_arrow()["id"].to_pylist())

    def _dropper(self) -> Callable[[], Any]:
        return partial(self._database.drop_table, self.collection, ignore_missing=True)


def _among(ids: list[str]) -> str:
    quoted = ", ".join("'" + one.replace("'", "''") + "'" for one in ids)
    return f"id IN ({quoted})"
