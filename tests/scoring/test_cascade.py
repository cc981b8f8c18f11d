"""A short look, then the whole of the best: whose logits are exact, and who stays below."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.config import ScoringConfig
from ranker.schemas import GROUPS
from ranker.scoring import load_scorer
from ranker.scoring.cascade import Cascade, in_two_passes
from ranker.scoring.cascade_loss import cascade_loss
from ranker.scoring.samples import Samples, sample_lists


def test_the_best_of_the_look_get_their_own_logit_and_the_others_stay_below_in_order():
    look = {"a": 1.0, "b": 4.0, "c": 2.0, "d": 3.0}
    whole = {"b": 0.5, "d": 0.75}
    asked = []

    def score(pairs, tokens):
        asked.append((tokens, [document for _, document in pairs]))
        return np.array([(look if tokens else whole)[document] for _, document in pairs])

    found = in_two_passes(Cascade(16, 2), [("q", document) for document in "abcd"], score)
    assert asked == [(16, ["a", "b", "c", "d"]), (None, ["b", "d"])]
    assert found.dtype == np.float32 and found[[1, 3]].tolist() == [0.5, 0.75]
    assert 0.49 < found[2] < 0.5 and found[0] == pytest.approx(found[2] - 1.0)  # as far apart as in the look


def test_each_query_is_a_list_of_its_own_and_a_short_one_is_read_at_once():
    lengths = []

    def score(pairs, tokens):
        lengths.append((tokens, len(pairs)))
        return np.arange(len(pairs), dtype=float)

    in_two_passes(Cascade(16, 2), [("q", "a"), ("r", "a"), ("q", "b"), ("r", "b"), ("q", "c")], score)
    assert lengths == [(16, 3), (None, 4)]


def test_the_scorer_ranks_in_two_passes(tiny_reranker):
    documents = [f"a cat of {number} kg " + "sleeps and eats " * number for number in range(12)]
    plain = load_scorer(tiny_reranker, ScoringConfig(precision="fp32"), "cpu")
    quick = load_scorer(tiny_reranker, ScoringConfig(precision="fp32", cascade_tokens=16, cascade_keep=4), "cpu")
    exact = plain.score([("pet", document) for document in documents])
    found = quick.score([("pet", document) for document in documents])
    kept = np.argsort(-found)[:4]
    np.testing.assert_allclose(found[kept], exact[kept], atol=1e-5)
    assert len(set(found.tolist())) == len(documents) and quick.score([]).shape == (0,)
    everything = load_scorer(tiny_reranker, ScoringConfig(precision="fp32", cascade_tokens=16, cascade_keep=12), "cpu")
    np.testing.assert_allclose(everything.score([("pet", document) for document in documents]), exact, atol=1e-5)


class Lengths:
    """Scores a pair by what of it is read: at a short look b is best, in full a."""

    cascade = None

    def score(self, pairs):
        if self.cascade is None:
            return np.array([float(text == "a") for _, text in pairs], dtype=np.float32)
        return in_two_passes(self.cascade, pairs, lambda some, tokens: self.look(some) if tokens else self.whole(some))

    def look(self, pairs):
        return np.array([float(text == "b") for _, text in pairs], dtype=np.float32)

    def whole(self, pairs):
        return np.array([float(text == "a") for _, text in pairs], dtype=np.float32)


def test_what_a_cascade_loses_is_measured_on_whole_lists(caplog):
    pairs = [("q", text) for text in "ab"]
    found = cascade_loss(Lengths(), Cascade(4, 1), Samples(pairs, np.array([1.0, 0.0])))
    # The one relevant document falls from rank 1 to rank 2.
    assert found["ndcg_loss"] == pytest.approx(1 - 1 / np.log2(3))
    assert (found["judged_by"], found["lists"], found["lists_cut"]) == ("labels", 1, 1)
    assert found["pairs_per_second"].keys() == {"cascade", "in_full"}
    found = cascade_loss(Lengths(), Cascade(4, 2), Samples(pairs, None))
    assert (found["ndcg_loss"], found["lists_cut"], found["judged_by"]) == (0.0, 0, "the model in full")
    assert "none of 1 lists is longer than cascade_keep=2" in caplog.text


def test_the_samples_of_a_cascade_are_whole_lists(tmp_path):
    row = {"query_id": ["q", "r", "s"], "query": ["q", "r", "s"], "documents": [["a", "b", "c"]] * 3,
           "labels": [[1.0, 0.0, 0.0]] * 3}  # fmt: skip
    pq.write_table(pa.table(row, schema=GROUPS), tmp_path / "groups.parquet")
    samples = sample_lists(tmp_path / "groups.parquet", 4)
    assert [query for query, _ in samples.pairs] == ["q"] * 3 + ["r"] * 3 and samples.labels.sum() == 2
    assert len(sample_lists(None, 4).pairs) == 64
