"""Measure a reranker: rerank a run, score it, test whether the change is real, and tell it on one page."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.evaluation.comparison import Comparison, compare_runs
    from ranker.evaluation.evaluator import RankerEvaluator
    from ranker.evaluation.runs import compare_files, evaluate_files

__all__ = ["Comparison", "RankerEvaluator", "compare_files", "compare_runs", "evaluate_files"]

_HOMES = {
    "Comparison": "comparison",
    "RankerEvaluator": "evaluator",
    "compare_files": "runs",
    "compare_runs": "comparison",
    "evaluate_files": "runs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
