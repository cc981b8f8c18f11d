"""Search the settings of training: a space file over Ray Tune, one trial one walk through the training stage.

The door is ``ranker.tuning.sweep.sweep``. It is not repeated here: a function of the module's own name would hide it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.tuning.space import Space, SpaceError
    from ranker.tuning.space_file import load_space

__all__ = ["Space", "SpaceError", "load_space"]
_HOMES = {"Space": "space", "SpaceError": "space", "load_space": "space_file"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
