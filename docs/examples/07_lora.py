"""07 LoRA: train a few small matrices instead of all weights; the saved model is merged and opens like any other."""

from pathlib import Path

from ranker.data import DataPreprocessor, load
from ranker.training import CrossEncoderTrainer


def main() -> None:
    """The same as 02, with an adapter of rank 8."""
    triples = DataPreprocessor().create_triples(load("pydocs", "train", max_documents=400))[:64]
    trainer = CrossEncoderTrainer(
        model_name="all-MiniLM-L6-v2", loss_function="bce", use_lora=True, lora_r=8, lora_alpha=16
    )
    done = trainer.train(
        triples, epochs=1, batch_size=8, learning_rate=5e-4, output_dir="runs/examples/lora", max_length=64
    )
    print(done.folder, "loss", done.outcome["loss"])
    print(sorted(file.name for file in Path(done.folder).iterdir()))


if __name__ == "__main__":
    main()
