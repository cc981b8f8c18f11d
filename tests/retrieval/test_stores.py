"""The contract that every vector store signs up to by registering."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from ranker.retrieval.stores import STORES, FaissStore, StoreError

# Four unit vectors in the plane: inner products can be checked by hand.
IDS = ["007", "7", "north", "west"]
VECTORS = np.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], dtype=np.float32)
EAST = np.array([[1, 0]], dtype=np.float32)


@pytest.fixture(params=sorted(STORES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_nearest_come_first_with_their_inner_products(name: str) -> None:
    store = STORES[name](2)
    store.add(IDS, VECTORS)
    ids, scores = store.search(np.concatenate([EAST, -EAST]), 3)
    assert ids == [["007", "7", "north"], ["west", "north", "7"]]
    np.testing.assert_allclose(scores, [[1, 0.8, 0], [1, 0, -0.8]], atol=1e-6)
    assert scores.dtype == np.float32 and len(store) == 4


def test_more_than_there_is_gives_all_and_an_empty_store_gives_none(name: str) -> None:
    store = STORES[name](2)
    assert store.search(EAST, 5)[0] == [[]]
    store.add(IDS[:2], VECTORS[:2])
    assert store.search(EAST, 5)[0] == [["007", "7"]]
    assert store.search(np.zeros((0, 2), np.float32), 5)[0] == []


def test_removed_ids_are_gone_and_unknown_ones_are_ignored(name: str) -> None:
    store = STORES[name](2)
    store.add(IDS, VECTORS)
    store.remove(["007", "nobody"])
    assert store.search(EAST, 4)[0] == [["7", "north", "west"]] and len(store) == 3
    store.add(["007"], VECTORS[:1])
    assert store.search(EAST, 1)[0] == [["007"]]


def test_an_id_that_is_there_gets_the_new_vector(name: str) -> None:
    store = STORES[name](2)
    store.add(IDS, VECTORS)
    store.add(["007"], VECTORS[3:])
    assert store.search(EAST, 4)[0][0][0] == "7" and len(store) == 4


def test_what_is_saved_loads_the_same_and_may_be_saved_over(name: str, tmp_path: Path) -> None:
    store = STORES[name](2)
    store.add(IDS, VECTORS)
    store.save(tmp_path / "store")
    store.remove(["7"])
    store.save(tmp_path / "store")
    again = STORES[name].load(tmp_path / "store")
    assert again.search(EAST, 4)[0] == [["007", "north", "west"]] and len(again) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_vectors_that_do_not_fit_are_refused(name: str) -> None:
    store = STORES[name](2)
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


def test_a_folder_without_a_whole_store_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no whole store"):
        STORES[name].load(tmp_path / "nothing")
    store = STORES[name](2)
    store.add(IDS, VECTORS)
    store.save(tmp_path / "store")
    for file in (tmp_path / "store").iterdir():
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(StoreError, match="build the index again"):
        STORES[name].load(tmp_path / "store")


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


def test_faiss_kinds_that_cannot_forget_say_so_and_keep_everything() -> None:
    store = FaissStore(2, "HNSW8")
    store.add(IDS, VECTORS)
    with pytest.raises(StoreError, match="'HNSW8' cannot remove"):
        store.remove(["7"])
    assert store.search(EAST, 2)[0] == [["007", "7"]]


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
