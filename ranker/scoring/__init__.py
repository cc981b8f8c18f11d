"""A cross-encoder as a scorer: one tokenisation, length-aware batches, engines for torch and ONNX Runtime."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.scoring.rerank import rerank_run
    from ranker.scoring.scorer import Scorer, load_scorer, probabilities

__all__ = ["Scorer", "load_scorer", "probabilities", "rerank_run"]

_HOMES = {"rerank_run": "rerank", "Scorer": "scorer", "load_scorer": "scorer", "probabilities": "scorer"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
