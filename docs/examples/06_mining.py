"""06 Mining: the documents that a retriever takes for answers and that are none make the best negatives."""

from ranker.training import HardNegativeMiner

DOCUMENTS = [
    "with open(path) closes the file when its block ends, also after an error.",
    "os.remove deletes a file.",
    "shutil.copy copies a file.",
    "A generator yields values one at a time and keeps its state.",
    "A list comprehension builds a list in one expression.",
]
QUERIES = ["close a file after an error", "values one at a time"]


def main() -> None:
    """Mine two negatives a query; what is mined goes straight into CrossEncoderTrainer.train."""
    miner = HardNegativeMiner(bi_encoder_model="all-MiniLM-L6-v2", relative_margin=0.05)
    mined = miner.mine(QUERIES, DOCUMENTS, top_k=2, positives=[[DOCUMENTS[0]], [DOCUMENTS[3]]])
    for row in mined:
        print(row["query"])
        for negative, score in zip(row["negatives"], row["scores"], strict=True):
            print(f"  {score:.3f} {negative}")


if __name__ == "__main__":
    main()
