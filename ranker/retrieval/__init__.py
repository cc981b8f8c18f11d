"""Text -> vectors -> neighbours: encoder, stores, index, search, BM25."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.retrieval.bm25 import bm25_run
    from ranker.retrieval.encoder import Encoder
    from ranker.retrieval.index import build_index
    from ranker.retrieval.retriever import Retriever
    from ranker.retrieval.search import search_index
    from ranker.retrieval.stores import STORES, Store

__all__ = ["STORES", "Encoder", "Retriever", "Store", "bm25_run", "build_index", "search_index"]

_HOMES = {
    "Encoder": "encoder",
    "Retriever": "retriever",
    "STORES": "stores",
    "Store": "stores",
    "bm25_run": "bm25",
    "build_index": "index",
    "search_index": "search",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
