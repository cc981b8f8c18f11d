"""01 Data: the documentation of the installed Python packages as queries, documents and judgements.

Any folder or zip of yours goes the same way: `load("my_documents.zip", "train")`; see docs/data.md.
"""

from ranker.data import DataPreprocessor, load


def main() -> None:
    """Look at a split, and at the training examples that come out of it."""
    train = load("pydocs", "train", max_documents=400)
    print(train)  # Collection('pydocs', split='train', documents=400, queries=..., judgements=...)
    query = train.queries.slice(0, 1).to_pylist()[0]
    judged = [row["doc_id"] for row in train.qrels.to_pylist() if row["query_id"] == query["query_id"]]
    print("query   ", query["text"])
    print("answer  ", train.texts(judged)[judged[0]][:80])
    triples = DataPreprocessor().create_triples(train)
    print("triples ", len(triples), "of (query, positive, negative); the negatives are drawn at random")
    print("wrong   ", triples[0][2][:80])


if __name__ == "__main__":
    main()
