"""02 Training: a cross-encoder from triples. A local Ray starts by itself; on a cluster the call is the same."""

from ranker.data import DataPreprocessor, load
from ranker.training import CrossEncoderTrainer

MODEL = "runs/examples/reranker"


def main() -> None:
    """Train on a few triples; give the same call again and it says that it is done."""
    triples = DataPreprocessor().create_triples(load("pydocs", "train", max_documents=400))[:64]
    trainer = CrossEncoderTrainer(model_name="all-MiniLM-L6-v2", num_labels=1, loss_function="bce")
    done = trainer.train(triples, epochs=1, batch_size=8, learning_rate=5e-5, output_dir=MODEL, max_length=64)
    print(done.folder, done.outcome["steps"], "steps, loss", done.outcome["loss"])


if __name__ == "__main__":
    main()
