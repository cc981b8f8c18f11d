"""03 Evaluation: is the reranked list better than the retriever's? Run 02_training.py first."""

from ranker.data import load
from ranker.evaluation import RankerEvaluator

MODEL = "runs/examples/reranker"


def main() -> None:
    """Measure on the test queries, which no training has seen."""
    test = load("pydocs", "test", max_documents=400)
    names = ["ndcg@10", "mrr@10", "map", "hit_rate@10"]
    metrics = RankerEvaluator(model_path=MODEL).evaluate(test, metrics=names, max_queries=20)  # without it: all
    for name, value in metrics.items():
        print(f"{name:12} {value:.4f}")


if __name__ == "__main__":
    main()
