"""Export a reranker to ONNX, checked against torch; the stage's door is ``ranker.optimization.export.export``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.optimization.optimizer import ModelOptimizer

__all__ = ["ModelOptimizer"]


def __getattr__(name: str) -> Any:
    if name == "ModelOptimizer":
        from ranker.optimization.optimizer import ModelOptimizer

        return ModelOptimizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
