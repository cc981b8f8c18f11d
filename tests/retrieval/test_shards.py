import numpy as np
import pytest

from ranker.retrieval.index import shard_sizes
from ranker.retrieval.shards import merge_shards, search_store
from ranker.retrieval.stores import FaissStore


def exact(scores: np.ndarray, k: int) -> np.ndarray:
    """The unsharded answer: by falling score, ties in corpus order."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("cuts", [[50], [20, 30], [1, 9, 40]])
def test_merging_the_shards_gives_exactly_the_unsharded_list(cuts: list[int]) -> None:
    scores = np.random.default_rng(0).normal(size=(7, 50)).astype(np.float32)
    keys, found, start = [], [], 0
    for size in cuts:
        best = exact(scores[:, start : start + size], 10)
        keys.append(best + start)
        found.append(np.take_along_axis(scores[:, start : start + size], best, 1))
        start += size
    merged, values = merge_shards(keys, found, 10)
    np.testing.assert_array_equal(merged, exact(scores, 10))
    np.testing.assert_array_equal(values, np.take_along_axis(scores, exact(scores, 10), 1))


def test_equal_scores_come_in_corpus_order_whichever_shard_comes_first() -> None:
    left = (np.array([[0, 2]]), np.array([[0.5, 0.5]], np.float32))
    right = (np.array([[5, 7]]), np.array([[0.9, 0.5]], np.float32))
    for shards in ([left, right], [right, left]):
        keys, _ = merge_shards([k for k, _ in shards], [s for _, s in shards], 4)
        assert keys.tolist() == [[5, 0, 2, 7]]


def test_places_that_found_nothing_stay_empty_at_the_end() -> None:
    keys, scores = merge_shards(
        [np.array([[3, -1]]), np.zeros((1, 0), np.int64)],
        [np.array([[-0.25, -np.inf]], np.float32), np.zeros((1, 0), np.float32)],
        3,
    )
    assert keys.tolist() == [[3, -1, -1]]
    assert scores.tolist() == [[-0.25, -np.inf, -np.inf]]


def test_no_shards_is_an_error() -> None:
    with pytest.raises(ValueError, match="no shards"):
        merge_shards([], [], 3)


def store_of(vectors: np.ndarray, factory: str = "Flat") -> FaissStore:
    store = FaissStore(vectors.shape[1], factory)
    store.add([str(n) for n in range(len(vectors))], vectors)
    return store


@pytest.mark.parametrize("cuts", [[900], [450, 450], [1, 300, 599], [100] * 9])
def test_flat_shards_give_the_exact_list_to_the_last_tie(cuts: list[int]) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(900, 48)).astype(np.float32)
    vectors[100:400] = vectors[100]  # a text that stands 300 times in the corpus
    vectors[500::7] = vectors[3]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = np.concatenate([vectors[[100, 3]], rng.normal(size=(30, 48)).astype(np.float32)])
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scores = (queries.astype(np.float64) @ vectors.T.astype(np.float64)).astype(np.float32)
    start, found = 0, []
    for size in cuts:
        keys, values = search_store(store_of(vectors[start : start + size]), queries, 20)
        found.append((keys + start, values))
        start += size
    keys, values = merge_shards([k for k, _ in found], [v for _, v in found], 20)
    np.testing.assert_array_equal(keys, exact(scores, 20))
    np.testing.assert_array_equal(values, np.take_along_axis(scores, exact(scores, 20), 1))


def test_shards_are_of_like_size_so_that_each_can_be_trained_on() -> None:
    assert shard_sizes(50_001, 50_000) == [25_001, 25_000] and shard_sizes(10, 4) == [4, 3, 3]
    assert shard_sizes(4, 9) == [4]


def test_an_approximate_store_keeps_its_own_scores() -> None:
    vectors = np.eye(8, dtype=np.float32)
    keys, scores = search_store(store_of(vectors, "HNSW8"), vectors[:2], 1)
    assert keys.tolist() == [[0], [1]] and scores.tolist() == [[1.0], [1.0]]
