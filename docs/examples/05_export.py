"""05 Export: the reranker for ONNX Runtime, checked against torch. Run 02_training.py first."""

from ranker.optimization import ModelOptimizer
from ranker.scoring import load_scorer


def main() -> None:
    """Export, and score with what came out."""
    optimizer = ModelOptimizer(model_path="runs/examples/reranker")
    done = optimizer.export_to_onnx(output_path="runs/examples/reranker-onnx")
    print(done.folder, "largest difference of a logit:", done.outcome["largest_difference"])
    scorer = load_scorer("runs/examples/reranker-onnx")
    print(scorer, scorer.rank("close a file", ["with open(path) closes it", "a list keeps an order"]))


if __name__ == "__main__":
    main()
