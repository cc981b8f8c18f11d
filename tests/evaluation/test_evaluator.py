import logging
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from ranker.config import ScoringConfig
from ranker.evaluation import RankerEvaluator
from ranker.evaluation import evaluator as home
from ranker.pretrained import ModelNotFoundError
from ranker.schemas import Collection

METRICS = ["ndcg@10", "mrr@10", "map", "hit_rate@10"]
FP32 = ScoringConfig(precision="fp32")


@pytest.fixture
def evaluator(tiny_reranker, tiny_retriever) -> RankerEvaluator:
    return RankerEvaluator(model_path=tiny_reranker, scoring=FP32, retriever_model=tiny_retriever)


def test_a_collection_is_measured_on_its_own_candidates(evaluator, letters, first) -> None:
    with_run = Collection(letters.name, "test", letters.corpus, letters.queries, letters.qrels, first)
    comparison = evaluator.compare(with_run, METRICS)
    assert list(comparison.scores) == ["candidates", "reranked"]
    assert comparison.means()["candidates"]["mrr@10"] == pytest.approx(2 / 3)
    assert evaluator.evaluate(with_run, metrics=METRICS) == comparison.means()["reranked"]


@pytest.mark.parametrize("candidates", ["bm25", "retriever"])
def test_without_candidates_a_first_stage_finds_them(evaluator, letters, candidates) -> None:
    comparison = evaluator.compare(letters, ["hit_rate@10"], candidates=candidates)
    assert list(comparison.scores) == [candidates, "reranked"]
    # Reranking reorders: at a cutoff beyond the corpus nothing is won or lost.
    assert comparison.tests[candidates]["hit_rate@10"].ties == 3


def test_samples_get_the_figures_of_sentence_transformers(evaluator, tiny_reranker, letters) -> None:
    texts = list(letters.texts().values())
    samples = [
        {"query": "first letter", "positive": [texts[0]], "negative": texts[1:]},
        {"query": "third letter", "positive": texts[2:], "negative": texts[:2]},
    ]
    model = CrossEncoder(tiny_reranker, device="cpu")
    theirs = CrossEncoderRerankingEvaluator(samples, at_k=10, name="x", write_csv=False)(model)
    ours = evaluator.evaluate(samples, metrics=["ndcg@10", "mrr@10", "map"])
    assert ours["ndcg@10"] == pytest.approx(theirs["x_ndcg@10"], abs=1e-6)
    assert ours["mrr@10"] == pytest.approx(theirs["x_mrr@10"], abs=1e-6)
    assert ours["map"] == pytest.approx(theirs["x_map"], abs=1e-6)


@pytest.mark.parametrize("missed", [True, False])
def test_missed_positives_count_as_sentence_transformers_counts_them_where_that_is_asked_for(
    tiny_reranker, missed, letters
) -> None:
    texts = list(letters.texts().values())
    samples = [{"query": "first letter", "positive": texts[:2], "documents": texts[1:]}]  # one of two is lost
    model = CrossEncoder(tiny_reranker, device="cpu")
    peer = CrossEncoderRerankingEvaluator(
        samples, at_k=10, always_rerank_positives=missed, name="x", write_csv=False
    )(model)  # fmt: skip
    evaluator = RankerEvaluator(tiny_reranker, scoring=FP32, rerank_missed_positives=missed)
    ours = evaluator.evaluate(samples, metrics=["ndcg@10", "mrr@10", "map", "recall@10"])
    assert ours["recall@10"] == (1.0 if missed else 0.5)
    assert ours["mrr@10"] == pytest.approx(peer["x_mrr@10"], abs=1e-6)
    if missed:  # without, the peer also leaves the lost one out of the ideal list and of the number of relevant ones
        assert ours["ndcg@10"] == pytest.approx(peer["x_ndcg@10"], abs=1e-6)
        assert ours["map"] == pytest.approx(peer["x_map"], abs=1e-6)
    else:
        assert ours["map"] == pytest.approx(peer["x_map"] / 2, abs=1e-6)


def test_a_path_is_test_data_too(evaluator, pets) -> None:
    assert evaluator.evaluate(str(pets), metrics=["hit_rate@10"], candidates="bm25").keys() == {"hit_rate@10"}


def test_the_whole_list_of_a_sample_is_reranked(evaluator) -> None:
    samples = [{"query": "pond", "documents": [f"text {n}" for n in range(40)], "labels": [0] * 39 + [1]}]
    assert evaluator.evaluate(samples, metrics=["recall@100"]) == {"recall@100": 1.0}
    assert evaluator.compare(samples).scores["reranked"].counts.tied_documents < 40


def test_mistakes_say_what_would_do(evaluator, letters, tmp_path) -> None:
    with pytest.raises(ModelNotFoundError):
        RankerEvaluator(model_path=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="'tfidf' is not one of auto, bm25, retriever"):
        evaluator.evaluate(letters, candidates="tfidf")


def with_run(letters: Collection, run: pa.Table) -> Collection:
    return Collection(letters.name, "test", letters.corpus, letters.queries, letters.qrels, run)


def test_queries_without_candidates_are_counted_and_count_as_not_found(evaluator, letters, ranked, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        scores = evaluator.evaluate(with_run(letters, ranked(q1="b a")), metrics=["hit_rate@10"])
    assert scores == {"hit_rate@10": pytest.approx(1 / 3)}
    assert "the run holds candidates of 1 of 3 queries; the others count as not found; candidates='bm25'" in caplog.text


def test_samples_without_a_positive_are_counted(evaluator, caplog) -> None:
    samples = [{"query": "a", "positive": ["x"], "negative": ["y"]}, {"query": "b", "positive": [], "negative": ["y"]}]
    with caplog.at_level(logging.WARNING):
        comparison = evaluator.compare(samples, ["map"])
    assert comparison.query_ids == ("q0",)
    assert "1 of 2 queries have no judgement and are left out, such as 'q1'" in caplog.text


def test_a_run_of_other_queries_is_none(evaluator, letters, ranked, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        comparison = evaluator.compare(with_run(letters, ranked(other="b a")), ["hit_rate@10"])
    assert list(comparison.scores) == ["bm25", "reranked"]
    assert "candidates of none of 3 queries; BM25 finds them" in caplog.text


def test_candidates_that_the_corpus_lacks_are_left_out_and_counted(evaluator, letters, ranked, caplog) -> None:
    run = ranked(q1="gone b a", q2="b lost", q3="gone c d")
    with caplog.at_level(logging.WARNING):
        comparison = evaluator.compare(with_run(letters, run), ["mrr@10"], depth=2)
    assert "3 of 8 candidates name documents that are not in the corpus (2 of them, such as 'gone')" in caplog.text
    # They take no rank: a is second, b and c are first.
    assert comparison.means()["candidates"]["mrr@10"] == pytest.approx((1 / 2 + 1 + 1) / 3)


def test_on_a_cluster_it_scores_on_its_own_node_and_device(tiny_reranker, letters, first, monkeypatch) -> None:
    asked: list[dict] = []

    def scored(model, tasks, folder, **options):
        asked.append(options)
        return SimpleNamespace(scores=np.zeros(tasks.num_pairs))

    nodes = [{"NodeID": "here", "Resources": {"CPU": 2.0, "GPU": 1.0}}, {"NodeID": "there", "Resources": {"GPU": 8.0}}]
    monkeypatch.setattr(home.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(home.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(home.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))
    monkeypatch.setattr(home, "score_distributed", scored)
    for device in ("cpu", "cuda:1", None):
        RankerEvaluator(tiny_reranker, scoring=FP32, device=device).evaluate(with_run(letters, first), ["map"])
    assert {each["node"] for each in asked} == {"here"}  # whose disk holds the texts
    assert [(each["device"], each["gpus_per_worker"]) for each in asked] == [("cpu", 0.0), ("cuda", 1.0), ("cuda", 1.0)]
    nodes[0]["Resources"].pop("GPU")
    with pytest.raises(ValueError, match="device 'cuda': Ray has no GPU on this node; use 'cpu'"):
        RankerEvaluator(tiny_reranker, scoring=FP32, device="cuda").evaluate(with_run(letters, first), ["map"])
