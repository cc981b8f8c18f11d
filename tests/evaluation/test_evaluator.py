import pytest
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from ranker.config import ScoringConfig
from ranker.evaluation import RankerEvaluator
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


def test_the_whole_list_of_a_sample_is_reranked(evaluator) -> None:
    samples = [{"query": "pond", "documents": [f"text {n}" for n in range(40)], "labels": [0] * 39 + [1]}]
    assert evaluator.evaluate(samples, metrics=["recall@100"]) == {"recall@100": 1.0}
    assert evaluator.compare(samples).scores["reranked"].num_ties < 40


def test_mistakes_say_what_would_do(evaluator, letters, tmp_path) -> None:
    with pytest.raises(ModelNotFoundError):
        RankerEvaluator(model_path=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="'tfidf' is not one of auto, bm25, retriever"):
        evaluator.evaluate(letters, candidates="tfidf")
