"""Train and serve semantic rerankers for retrieval-augmented generation, on a laptop or on a Ray cluster."""

__version__ = "0.1.0"
