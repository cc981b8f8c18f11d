"""Fine-tuning cross-encoders: hard negatives, the Ray Train shell, the DeepSpeed loop and its pure parts."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.training.cross_encoder import CrossEncoderTrainer
    from ranker.training.miner import HardNegativeMiner

__all__ = ["CrossEncoderTrainer", "HardNegativeMiner"]

_HOMES = {"CrossEncoderTrainer": "cross_encoder", "HardNegativeMiner": "miner"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
