"""Where tables come from: the catalog of sources, file formats, training examples."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.data.catalog import DATASETS, load, prepare
    from ranker.data.errors import DataError
    from ranker.data.loaders import (
        BEIRDataLoader,
        CustomDataLoader,
        MSMARCODataLoader,
        PydocsDataLoader,
        QuoraDataLoader,
        TRECDLDataLoader,
    )
    from ranker.data.preprocessor import DataPreprocessor
    from ranker.data.spread import ray_dataset

__all__ = [
    "DATASETS",
    "BEIRDataLoader",
    "CustomDataLoader",
    "DataError",
    "DataPreprocessor",
    "MSMARCODataLoader",
    "PydocsDataLoader",
    "QuoraDataLoader",
    "TRECDLDataLoader",
    "load",
    "prepare",
    "ray_dataset",
]

_HOMES = {
    **dict.fromkeys(("DATASETS", "load", "prepare"), "catalog"),
    "DataError": "errors",
    "DataPreprocessor": "preprocessor",
    "ray_dataset": "spread",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'loaders')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
