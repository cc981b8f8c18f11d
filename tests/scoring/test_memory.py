"""Scored pairs are not scored again, and the oldest are forgotten."""

import numpy as np

from ranker.config import ScoringConfig
from ranker.scoring import load_scorer
from ranker.scoring.memory import LogitMemory, row_keys

FP32 = {"precision": "fp32"}


def counted(scorer):
    rows = []
    run = scorer.engine.logits
    scorer.engine.logits = lambda batch: rows.append(len(batch["input_ids"])) or run(batch)
    return rows


def test_what_was_scored_is_remembered(tiny_reranker):
    scorer = load_scorer(tiny_reranker, ScoringConfig(**FP32, cache_pairs=100), "cpu")
    rows = counted(scorer)
    first = scorer.score([("cat", "a dog"), ("cat", "a cat"), ("cat", "a dog")])
    again = scorer.score([("cat", "a cat"), ("cat", "a parrot"), ("cat", "a dog")])
    assert sum(rows) == 3  # two different pairs, and then the parrot
    assert again[[0, 2]].tolist() == first[[1, 0]].tolist()


def test_without_a_memory_equal_pairs_of_a_call_are_still_one(tiny_reranker):
    scorer = load_scorer(tiny_reranker, ScoringConfig(**FP32), "cpu")
    rows = counted(scorer)
    scorer.score([("cat", "a dog")] * 5)
    scorer.score([("cat", "a dog")] * 5)
    assert rows == [1, 1]


def test_the_oldest_are_forgotten_and_what_was_asked_for_is_young():
    memory = LogitMemory(2)
    memory.keep({b"a": 1.0, b"b": 2.0})
    assert memory.recall([b"a"]) == {b"a": 1.0}
    memory.keep({b"c": 3.0})
    assert memory.recall([b"a", b"b", b"c"]) == {b"a": 1.0, b"c": 3.0} and len(memory) == 2


def test_a_key_knows_the_type_ids():
    ids = [[101, 7, 102, 8, 102]] * 2
    keys = row_keys({"input_ids": ids, "token_type_ids": [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]})
    assert keys[0] != keys[1] and len(set(row_keys({"input_ids": ids}))) == 1


def test_passages_give_their_best_logit(tiny_reranker):
    parts = ["a cat sleeps on the mat " * 12, "dogs bark at night and eat " * 12]
    long = " ".join(parts)
    whole = load_scorer(tiny_reranker, ScoringConfig(**FP32, max_length=24, max_passages=40), "cpu")
    cut = load_scorer(tiny_reranker, ScoringConfig(**FP32, max_length=24), "cpu")
    first = load_scorer(tiny_reranker, ScoringConfig(**FP32, max_length=24, max_passages=40, passage_score="first"))
    rows = counted(whole)
    best, short = whole.score([("dog", long), ("dog", "a cat")])
    assert sum(rows) > 5 and best >= cut.score([("dog", long)])[0]
    np.testing.assert_allclose(first.score([("dog", long)]), cut.score([("dog", long)]), atol=1e-6)
    np.testing.assert_allclose(short, cut.score([("dog", "a cat")])[0], atol=1e-6)
