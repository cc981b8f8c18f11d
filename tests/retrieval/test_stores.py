"""The contract that every vector store signs up to by registering."""

import gc
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from ranker.retrieval.stores import STORES, FaissStore, Store, StoreError

# Four unit vectors in the plane: inner products can be checked by hand.
IDS = ["007", "7", "north", "west"]
VECTORS = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], dtype=np.float32)
EAST = np.array([[1, 0]], dtype=np.float32)


PACKAGES = {"chroma": "chromadb", "lancedb": "lancedb", "pinecone": "pinecone", "qdrant": "qdrant_client"}
# Where the vectors lie outside of what is saved: an address or a folder.
PLACED = ["chroma at a path", "lancedb at a path", "pinecone"]


class Maker:
    """Makes and loads one kind of store; ``place`` are the options that say where its vectors lie."""

    def __init__(self, name: str, place: dict[str, Any]) -> None:
        self.kind, self.place = STORES[name], place

    def __call__(self, dimension: int, **options: Any) -> Store:
        return self.kind(dimension, **self.place, **options)

    def load(self, folder: Path) -> Store:
        secret = {"api_key": self.place["api_key"]} if "api_key" in self.place else {}
        return self.kind.load(folder, **secret)


def make(label: str, folder: Path, pinecone_server: Any) -> Maker:
    name = label.partition(" ")[0]
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    place = {"path": str(folder / "database")} if " at " in label else {}
    return Maker(name, pinecone_server.options(pinecone_server(2)) if name == "pinecone" else place)


@pytest.fixture(params=sorted({*STORES, *PLACED}))
def new(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pinecone_server: Any) -> Maker:
    return make(request.param, tmp_path_factory.mktemp("place"), pinecone_server)


@pytest.fixture(params=PLACED)
def placed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pinecone_server: Any) -> Maker:
    return make(request.param, tmp_path_factory.mktemp("place"), pinecone_server)


def test_the_nearest_come_first_with_their_inner_products(new: Maker) -> None:
    store = new(2)
    store.add(IDS, VECTORS)
    ids, scores = store.search(np.concatenate([EAST, -EAST]), 3)
    assert ids == [["007", "7", "north"], ["west", "north", "7"]]
    np.testing.assert_allclose(scores, [[1, 0.8, 0], [1, 0, -0.8]], atol=1e-6)
    assert scores.dtype == np.float32 and len(store) == 4


def test_more_than_there_is_gives_all_and_an_empty_store_gives_none(new: Maker) -> None:
    store = new(2)
    assert store.search(EAST, 5)[0] == [[]]
    store.add(IDS[:2], VECTORS[:2])
    assert store.search(EAST, 5)[0] == [["007", "7"]]
    assert store.search(np.zeros((0, 2), np.float32), 5)[0] == []


def test_removed_ids_are_gone_and_unknown_ones_are_ignored(new: Maker) -> None:
    store = new(2)
    store.add(IDS, VECTORS)
    store.remove(["007", "nobody"])
    assert store.search(EAST, 4)[0] == [["7", "north", "west"]] and len(store) == 3
    store.add(["007"], VECTORS[:1])
    assert store.search(EAST, 1)[0] == [["007"]]


def test_an_id_that_is_there_gets_the_new_vector(new: Maker) -> None:
    store = new(2)
    store.add(IDS, VECTORS)
    store.add(["007"], VECTORS[3:])
    assert store.search(EAST, 4)[0][0][0] == "7" and len(store) == 4


def test_what_is_saved_loads_the_same_and_may_be_saved_over(new: Maker, tmp_path: Path) -> None:
    store = new(2)
    store.add(IDS, VECTORS)
    store.save(tmp_path / "store")
    store.remove(["7"])
    store.save(tmp_path / "store")
    again = new.load(tmp_path / "store")
    assert again.search(EAST, 4)[0] == [["007", "north", "west"]] and len(again) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_vectors_that_do_not_fit_are_refused(new: Maker) -> None:
    store = new(2)
    store.add(IDS, VECTORS)
    with pytest.raises(StoreError, match=r"shape \(1, 3\) for a store of dimension 2"):
        store.search(np.zeros((1, 3), np.float32), 1)
    with pytest.raises(StoreError, match="dimension 2"):
        store.add(["x"], np.zeros((1, 3), np.float32))
    with pytest.raises(StoreError, match=r"2 ids .* for 1 vectors"):
        store.add(["x", "y"], VECTORS[:1])
    with pytest.raises(StoreError, match=r"2 ids .1 different"):
        store.add(["x", "x"], VECTORS[:2])
    with pytest.raises(StoreError, match="NaN"):
        store.add(["x"], np.array([[np.nan, 0]], dtype=np.float32))
    assert len(store) == 4


def test_a_folder_without_a_whole_store_is_refused(new: Maker, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no whole store"):
        new.load(tmp_path / "nothing")
    store = new(2)
    store.add(IDS, VECTORS)
    store.save(tmp_path / "store")
    for file in (tmp_path / "store").iterdir():
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(StoreError, match="build the index again"):
        new.load(tmp_path / "store")


def test_only_what_is_allowed_is_found_in_the_same_order(new: Maker) -> None:
    store = new(2)
    store.add(IDS, VECTORS)
    ids, scores = store.search(np.concatenate([EAST, -EAST]), 2, among=["west", "7", "nobody"])
    assert ids == [["7", "west"], ["west", "7"]]
    np.testing.assert_allclose(scores, [[0.8, -1], [1, -0.8]], atol=1e-6)
    assert store.search(EAST, 2, among=[])[0] == [[]]


def test_vectors_come_back_under_their_ids(new: Maker) -> None:
    store = new(2)
    store.add(IDS, VECTORS)
    np.testing.assert_allclose(store.vectors(["west", "007"]), VECTORS[[3, 0]], atol=1e-6)
    assert store.known() == set(IDS) and not store.lacks
    with pytest.raises(StoreError, match="'nobody'"):
        store.vectors(["007", "nobody"])
    store.drop()


def test_all_stores_give_what_exact_search_gives(new: Maker) -> None:
    rng = np.random.default_rng(3)
    angles = rng.permutation(np.linspace(0, np.pi / 2, 300)).astype(np.float32)  # cosines that are well apart
    store, ids = new(2), [f'it\'s "{number}"' for number in range(300)]
    store.add(ids, np.stack([np.cos(angles), np.sin(angles)], axis=1))
    found, scores = store.search(EAST, 250)
    assert found == [[ids[row] for row in np.argsort(angles)[:250]]]
    np.testing.assert_allclose(scores[0], np.cos(np.sort(angles)[:250]), atol=1e-5)
    few = sorted(ids)[::3]
    assert store.search(EAST, 20, among=few)[0] == [[one for one in found[0] if one in set(few)][:20]]


def test_a_store_with_a_place_is_saved_as_where_it_is(placed: Maker, tmp_path: Path) -> None:
    store = placed(2)
    store.add(IDS, VECTORS)
    store.save(tmp_path / "store")
    assert store.shared and [file.name for file in (tmp_path / "store").iterdir()] == ["store.json"]
    assert "key" not in (tmp_path / "store" / "store.json").read_text()
    other = placed(2)  # a collection of its own in the same place
    other.add(["x"], VECTORS[:1])
    assert placed.load(tmp_path / "store").known() == set(IDS)
    other.drop()
    assert len(placed.load(tmp_path / "store")) == 4
    store.drop()


def test_a_collection_is_made_with_the_first_vector_and_goes_with_a_store_that_is_not_saved(
    placed: Maker, tmp_path: Path
) -> None:
    store = placed(2)
    assert len(store) == 0 and store.known() == set() and store.search(EAST, 3)[0] == [[]]
    store.remove(["x"])
    store.drop()  # nothing is there
    store.save(tmp_path / "empty")
    assert len(placed.load(tmp_path / "empty")) == 0
    kept, lost = placed(2), placed(2)
    for one in (kept, lost):
        one.add(IDS, VECTORS)
    kept.save(tmp_path / "kept")
    del kept
    lost.save(tmp_path / "lost")
    lost.drop()
    lost.drop()
    gc.collect()
    assert placed.load(tmp_path / "kept").known() == set(IDS)
    try:
        left = placed.load(tmp_path / "lost").known()
    except StoreError:  # Pinecone's namespace is there when it holds something
        left = set()
    assert not left


def test_another_dimension_is_refused_when_a_collection_is_opened(placed: Maker, tmp_path: Path) -> None:
    store = placed(2)
    store.add(IDS, VECTORS)
    store.save(tmp_path / "store")
    about = tmp_path / "store" / "store.json"
    about.write_text(about.read_text().replace('"dimension": 2', '"dimension": 3'))
    with pytest.raises(StoreError, match=r"has dimension 2, and the retriever's vectors have 3"):
        placed.load(tmp_path / "store")


def test_pinecone_says_at_construction_what_is_missing(pinecone_server: Any) -> None:
    pytest.importorskip("pinecone")
    kind, server = STORES["pinecone"], pinecone_server(3, "euclidean")
    options = pinecone_server.options(server)
    for wrong, said in (
        ({}, "has metric euclidean"),
        ({"index": "nowhere"}, "NotFoundError: .*nowhere not found"),
        ({"api_key": "other"}, "Invalid API Key"),
        ({"index": None, "host": None}, "needs store_options"),
    ):
        with pytest.raises(StoreError, match=said):
            kind(3, **{**options, **wrong})
    good = pinecone_server(2)
    with pytest.raises(StoreError, match="dimension 2, and the retriever's vectors have 3"):
        kind(3, **pinecone_server.options(good))


def test_pinecone_is_written_and_asked_within_its_limits(pinecone_server: Any) -> None:
    pytest.importorskip("pinecone")
    server = pinecone_server(64)
    store = STORES["pinecone"](64, **pinecone_server.options(server))
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2500, 64)).astype(np.float32)
    ids = [f"d{number}" for number in range(2500)]
    store.add(ids, vectors)
    assert server.calls.count("/vectors/upsert") >= 3 and len(store) == 2500
    assert store.known() == set(ids)  # 25 pages
    np.testing.assert_allclose(store.vectors(ids[:250]), vectors[:250], atol=1e-6)
    assert len(store.search(vectors[:1], 20_000)[0][0]) == 2500
    store.remove(ids[:2400])
    assert len(store) == 100


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(StoreError, match=r"pip install 'ranker\[chroma\]'"):
        STORES["chroma"](2)


@pytest.mark.parametrize("factory", ["IVF2,Flat", "PCA2,IVF2,Flat", "SQ8"])
def test_faiss_kinds_that_can_forget_do(factory: str) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store = FaissStore(4, factory)
    store.add([str(n) for n in range(400)], vectors)
    best = store.search(vectors[7:8], 1)[0][0][0]
    store.remove([best, "0", "399"])
    rest = store.search(vectors[7:8], 10)[0][0]
    assert best not in rest and len(store) == 397 and rest


@pytest.mark.parametrize("factory", ["HNSW16", "PCA4,HNSW16", "HNSW16_SQ8", "NSG8,Flat", "IVF4,Flat,RFlat", "SQ8"])
def test_no_faiss_kind_finds_what_was_removed_or_is_not_allowed(factory: str) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [str(n) for n in range(400)]
    store = FaissStore(8, factory)
    store.add(ids, vectors)
    store.remove(ids[:100])
    found = {one for row in store.search(vectors[:20], 300)[0] for one in row}
    assert found <= set(ids[100:]) and len(store) == 300
    allowed = ids[50:350:2]
    lists = store.search(vectors[:20], 10, among=allowed)[0]
    assert all(len(row) == 10 and set(row) <= set(allowed) - set(ids[:100]) for row in lists)
    if factory == "HNSW16":  # exact among few
        scores = vectors[:20] @ vectors[100:350:2].T
        assert [row[0] for row in lists] == [ids[100 + 2 * best] for best in scores.argmax(axis=1)]


def test_a_graph_is_built_again_when_half_of_it_was_removed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors, ids = rng.normal(size=(2200, 4)).astype(np.float32), [str(n) for n in range(2200)]
    store = FaissStore(4, "HNSW8", ef_search=64)
    store.add(ids, vectors)
    store.remove(ids[:1000])
    assert len(store.ids) == 2200
    store.save(tmp_path / "store")  # with what is only marked as removed
    assert FaissStore.load(tmp_path / "store").search(vectors[:1], 3)[0] == store.search(vectors[:1], 3)[0]
    store.remove(ids[1000:1150])
    assert len(store.ids) == len(store) == 1050
    np.testing.assert_allclose(store.vectors(["2000"]), vectors[2000:2001])


def test_how_widely_an_index_looks_is_kept_and_refused_where_it_means_nothing(tmp_path: Path) -> None:
    store = FaissStore(2, "HNSW8", ef_search=77)
    store.add(IDS, VECTORS)
    store.save(tmp_path / "store")
    assert FaissStore.load(tmp_path / "store").options == {"nprobe": None, "ef_search": 77}
    with pytest.raises(StoreError, match=r"nprobe 4: index.factory 'HNSW8' has no such setting"):
        FaissStore(2, "HNSW8", nprobe=4)
    assert FaissStore(2, "IVF2,Flat").lacks == {"vectors"}


def test_a_kill_between_the_renames_of_a_save_leaves_the_old_store(tmp_path: Path) -> None:
    store = FaissStore(2)
    store.add(IDS, VECTORS)
    store.save(tmp_path / "store")
    (tmp_path / "store").rename(tmp_path / ".store.previous")
    assert len(FaissStore.load(tmp_path / "store")) == 4
    store.save(tmp_path / "store")
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_a_factory_that_is_none_and_one_with_too_few_vectors_are_named() -> None:
    with pytest.raises(StoreError, match=r"index.factory 'Flatt'"):
        FaissStore(2, "Flatt")
    with pytest.raises(StoreError, match="'IVF64,Flat' cannot be trained on 4 vectors"):
        FaissStore(2, "IVF64,Flat").add(IDS, VECTORS)


def test_flat_gives_what_faiss_itself_gives() -> None:
    rng = np.random.default_rng(1)
    vectors, queries = (rng.normal(size=(n, 8)).astype(np.float32) for n in (200, 5))
    store, oracle = FaissStore(8), faiss.IndexFlatIP(8)
    store.add([str(n) for n in range(200)], vectors)
    oracle.add(vectors)
    scores, rows = oracle.search(queries, 10)
    ids, found = store.search(queries, 10)
    assert ids == [[str(row) for row in line] for line in rows]
    np.testing.assert_allclose(found, scores, rtol=1e-6)
