"""An autoscaling HTTP service over a reranker and an index: Gateway -> Retriever -> Reranker on Ray Serve."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.serving.app import ServeArgs, build
    from ranker.serving.batching import GreedyBatcher
    from ranker.serving.lint import check

__all__ = ["GreedyBatcher", "ServeArgs", "build", "check"]

_HOMES = {"ServeArgs": "app", "build": "app", "GreedyBatcher": "batching", "check": "lint"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
