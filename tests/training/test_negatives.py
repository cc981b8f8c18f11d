"""The negative filter against hand-checked numbers and against sentence-transformers' miner."""

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SimilarityFunction
from sentence_transformers.util import mine_hard_negatives

from ranker.config import MineConfig
from ranker.training.negatives import Candidates, choose_negatives


def one_query(**changes: Any) -> Candidates:
    """Ten documents; the query's neighbours are 3 (its positive, 0.8), 1, 4, 0, 5, 9 with falling similarity."""
    plain: dict[str, Any] = {
        "query_ids": ["q"],
        "keys": np.array([[1, 3, 4, 0, 5, 9]]),
        "scores": np.array([[0.9, 0.8, 0.77, 0.7, 0.5, 0.1]], dtype=np.float32),
        "positives": [[3]],
        "positive_scores": [[0.8]],
        "judged_negatives": [[]],
        "same_text": np.arange(10),
    }
    return Candidates(**{**plain, **changes})


def chosen(candidates: Candidates, **settings: Any) -> list[int]:
    mine = MineConfig(**{"num_negatives": 10, "relative_margin": None, **settings})
    return choose_negatives(candidates, mine, seed=0).keys[0]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1, 4, 0, 5, 9]),
        ({"num_negatives": 2}, [1, 4]),
        ({"relative_margin": 0.05}, [0, 5, 9]),  # above 0.95 * 0.8 = 0.76: 0.9 and 0.77
        ({"absolute_margin": 0.2}, [5, 9]),  # nearer than 0.8 - 0.2 = 0.6
        ({"max_score": 0.75}, [0, 5, 9]),
        ({"min_score": 0.6}, [1, 4, 0]),
        ({"range_min": 1}, [4, 0, 5, 9]),
        ({"range_max": 3, "num_negatives": 3}, [1, 4, 0]),
        ({"num_candidates": 4}, [1, 4, 0]),  # with the positive
        ({"num_candidates": 5, "range_max": 2, "num_negatives": 2}, [1, 4]),
        ({"range_min": 1, "range_max": 3, "num_negatives": 1}, [4]),
        ({"range_min": 1, "relative_margin": 0.05}, [5, 9]),
    ],
)
def test_each_filter_keeps_what_it_says(settings: dict[str, Any], expected: list[int]) -> None:
    assert chosen(one_query(), **settings) == expected


def test_every_positive_and_every_copy_of_one_is_left_out() -> None:
    same_text = np.array([0, 1, 2, 3, 3, 5, 6, 7, 8, 5])  # 4 reads as the positive 3, and 9 as 5
    candidates = one_query(positives=[[3, 0]], positive_scores=[[0.8, 0.7]], same_text=same_text)
    found = choose_negatives(candidates, MineConfig(relative_margin=None), seed=0)
    assert found.keys == [[1, 5]] and found.ranks == [[1, 5]]
    assert found.dropped == {"positive": 2, "copy_of_positive": 1, "copy_of_candidate": 1}


def test_margins_count_from_the_least_similar_positive() -> None:
    candidates = one_query(positives=[[3, 8]], positive_scores=[[0.8, 0.5]])
    assert chosen(candidates, relative_margin=0.05) == [9]  # below 0.475


def test_a_judged_negative_passes_the_score_filters() -> None:
    assert chosen(one_query(judged_negatives=[[1]]), relative_margin=0.05, max_score=0.6) == [1, 5, 9]


def test_a_query_without_known_positive_has_no_margin() -> None:
    candidates = one_query(positives=[[]], positive_scores=[[]])
    assert chosen(candidates, relative_margin=0.05, absolute_margin=0.1) == [1, 3, 4, 0, 5, 9]


def test_empty_places_are_no_candidates() -> None:
    candidates = one_query(
        keys=np.array([[1, -1, -1]]),
        scores=np.array([[0.1, -np.inf, -np.inf]], dtype=np.float32),
        same_text=np.arange(4),
    )
    assert chosen(candidates) == [1]


def test_a_sample_is_seeded_by_query_and_stays_in_order() -> None:
    settings = {"num_negatives": 3, "sampling_strategy": "random"}
    found = chosen(one_query(), **settings)
    assert found == chosen(one_query(), **settings)
    assert len(found) == 3 and found == [key for key in [1, 4, 0, 5, 9] if key in found]
    samples = {tuple(chosen(one_query(query_ids=[f"q{n}"]), **settings)) for n in range(20)}
    assert len(samples) > 3


def test_a_share_is_drawn_from_the_whole_corpus_but_never_a_right_answer() -> None:
    mine = MineConfig(num_negatives=8, random_ratio=0.5, relative_margin=None)
    found = choose_negatives(one_query(), mine, seed=4)
    assert found.keys[0][:4] == [1, 4, 0, 5] and found.ranks[0] == [1, 3, 4, 5, 0, 0, 0, 0]
    drawn = found.keys[0][4:]
    assert len(set(drawn)) == 4 and set(drawn) <= {2, 6, 7, 8, 9}
    assert np.isnan(found.scores[0][4:]).all()


class FixedVectors:
    """What the oracle needs of a model, with vectors that are given."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self.vectors, self.device = vectors, torch.device("cpu")
        self.similarity = SimilarityFunction.to_similarity_fn("dot")
        self.similarity_pairwise = SimilarityFunction.to_similarity_pairwise_fn("dot")

    def encode_document(self, texts: list[str], **_: Any) -> np.ndarray:
        return np.stack([self.vectors[text] for text in texts])

    encode_query = encode_document


@pytest.mark.parametrize(
    "settings",
    [
        {"range_max": 20},
        {"range_min": 2, "range_max": 15},
        {"range_max": 20, "relative_margin": 0.05},
        {"range_max": 20, "absolute_margin": 0.1},
        {"range_max": 25, "max_score": 0.6, "min_score": 0.1},
        {"range_min": 1, "range_max": 25, "relative_margin": 0.2, "max_score": 0.7},
    ],
)
@pytest.mark.parametrize("num_positives", [1, 3])
def test_the_negatives_are_those_of_sentence_transformers(settings: dict[str, Any], num_positives: int) -> None:
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(60, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents, queries = vectors[:40], vectors[40:]
    similar = queries @ documents.T
    near = np.argsort(-similar, axis=1)[:, :8]  # as right answers are
    positives = [rng.choice(row, size=num_positives, replace=False).tolist() for row in near]
    texts = {**{f"d{n}": documents[n] for n in range(40)}, **{f"q{n}": queries[n] for n in range(20)}}
    rows = [(f"q{n}", f"d{key}") for n, known in enumerate(positives) for key in known]
    data = Dataset.from_dict({"query": [q for q, _ in rows], "positive": [d for _, d in rows]})
    oracle = mine_hard_negatives(
        data, FixedVectors(texts), corpus=[f"d{n}" for n in range(40)], num_negatives=4,
        output_format="labeled-list", verbose=False, **settings,
    )  # fmt: skip
    expected = {row["query"]: row["positive"][1:] for row in oracle}
    order = np.argsort(-similar, axis=1)
    candidates = Candidates(
        query_ids=[f"q{n}" for n in range(20)],
        keys=order,
        scores=np.take_along_axis(similar, order, 1),
        positives=positives,
        positive_scores=[[float(similar[n, key]) for key in known] for n, known in enumerate(positives)],
        judged_negatives=[[] for _ in positives],
        same_text=np.arange(40),
    )
    mine = MineConfig(**{"num_negatives": 4, "relative_margin": None, **settings})
    found = choose_negatives(candidates, mine, seed=0)
    ours = {f"q{n}": [f"d{key}" for key in keys] for n, keys in enumerate(found.keys) if keys}
    assert ours == expected and len(ours) > 5


def test_documents_held_out_for_other_splits_and_their_copies_are_no_negatives() -> None:
    same_text = np.array([0, 1, 2, 3, 4, 4, 6, 7, 8, 9])  # 5 reads as 4
    candidates = one_query(same_text=same_text, held_out=np.array([5, 1]))
    found = choose_negatives(candidates, MineConfig(relative_margin=None), seed=0)
    assert found.keys == [[0, 9]] and found.dropped["held_out"] == 2  # 5 is a copy of a candidate
    random = MineConfig(relative_margin=None, num_negatives=10, random_ratio=1.0)
    assert not {1, 4, 5} & set(choose_negatives(candidates, random, seed=0).keys[0])


def test_an_unjudged_copy_of_a_judged_negative_passes_like_it() -> None:
    same_text = np.array([0, 1, 2, 3, 4, 5, 6, 1, 8, 9])  # 7 reads as 1
    candidates = one_query(judged_negatives=[[7]], same_text=same_text)
    assert chosen(candidates, relative_margin=0.05, max_score=0.6) == [1, 5, 9]


def test_nothing_that_was_rejected_is_drawn_at_random() -> None:
    signatures = np.arange(10, dtype=np.uint8)[:, None].repeat(128, axis=1)
    signatures[8] = signatures[3]  # nearly the positive, and in no list
    likeness = np.array([[0, 1, 0, 0.9, 0, 0]], dtype=np.float32)  # 0 is nearly the positive, too
    candidates = one_query(likeness=likeness, signatures=signatures)
    mine = MineConfig(num_negatives=10, random_ratio=1.0, relative_margin=0.05, near_duplicates=0.8)
    drawn = {key for seed in range(20) for key in choose_negatives(candidates, mine, seed).keys[0]}
    assert drawn == {2, 5, 6, 7, 9}  # without 1 and 4, which the margin left out


def test_all_that_is_left_is_drawn_however_little() -> None:
    candidates = one_query(held_out=np.array([0, 1, 2, 4, 5, 6, 7, 9]))
    mine = MineConfig(num_negatives=2, random_ratio=1.0, relative_margin=None)
    assert all(choose_negatives(candidates, mine, seed).keys == [[8]] for seed in range(50))


def test_more_negatives_than_the_range_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="num_negatives 4 is more than stands between range_min 1 and range_max 4"):
        MineConfig(num_negatives=4, range_min=1, range_max=4)
