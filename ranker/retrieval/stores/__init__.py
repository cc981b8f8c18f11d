"""Vector stores behind one protocol, and the registry of them: to register is to sign up for the contract test.

A store needs its own package only when it is made: ``pip install 'ranker[chroma]'`` and so on.
"""

from ranker.retrieval.stores.base import FEATURES, STORES, Store, StoreClass, StoreError, Vectors
from ranker.retrieval.stores.chroma_store import ChromaStore
from ranker.retrieval.stores.faiss_store import FaissStore
from ranker.retrieval.stores.lance_store import LanceStore
from ranker.retrieval.stores.pinecone_store import PineconeStore
from ranker.retrieval.stores.qdrant_store import QdrantStore

__all__ = [
    "FEATURES",
    "STORES",
    "ChromaStore",
    "FaissStore",
    "LanceStore",
    "PineconeStore",
    "QdrantStore",
    "Store",
    "StoreClass",
    "StoreError",
    "Vectors",
]
