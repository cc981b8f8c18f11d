"""What a model folder holds, and whether that is a reranker, before any weight is loaded."""

import json
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from ranker.pretrained import ModelNotFoundError, resolve

# Where graphs lie, and what their names end in for a precision (as exporters for the hub name them).
ONNX_FOLDERS = ("", "onnx")
GRAPH_NAMES = {
    "model.onnx": "fp32",
    "model_fp16.onnx": "fp16",
    "model_int8.onnx": "int8",
    "model_quantized.onnx": "int8",
    "model_optimized.onnx": "fp32",
}


class NotARerankerError(ValueError):
    """A model that does not give one relevance logit a pair."""


@dataclass(frozen=True)
class ModelFiles:
    """Where the parts of a reranker are.

    Args:
        name: as the user said it. model: folder or hub id. graph: the ONNX file; None where there is none.
        adapter: True where the folder holds LoRA weights for another model.
        weights: True where torch weights are there (or may be, on the hub).
        graphs: every ONNX file of the folder, ``graph`` first.
    """

    name: str
    model: str
    graph: Path | None
    adapter: bool
    weights: bool
    graphs: tuple[Path, ...] = ()

    @property
    def base(self) -> str:
        """The folder or hub id that the configuration is read from: of an adapter, the model below it."""
        if not self.adapter:
            return self.model
        adapter = json.loads((Path(self.model) / "adapter_config.json").read_text("utf-8"))
        return resolve(adapter["base_model_name_or_path"])


def find_model(name: str | Path) -> ModelFiles:
    """The parts of a folder, a hub id, or a ``NAME.onnx`` file in a model's folder or beside its ``NAME-onnx``.

    Raises:
        ModelNotFoundError: naming the folder and what it lacks.
    """
    path = Path(name).expanduser()
    if path.suffix == ".onnx" and path.is_file():
        graph = path.absolute()
        return ModelFiles(str(name), str(_folder_of(path)), graph, adapter=False, weights=False, graphs=(graph,))
    model = resolve(name)
    folder = Path(model)
    if not folder.is_dir():
        return ModelFiles(str(name), model, None, adapter=False, weights=True)
    places = (folder / below / file for file in GRAPH_NAMES for below in ONNX_FOLDERS)
    graphs = tuple(place for place in places if place.is_file())
    weights = any(folder.glob("*.safetensors"))
    adapter = (folder / "adapter_config.json").is_file()
    return ModelFiles(str(name), model, next(iter(graphs), None), adapter, weights, graphs)


def export_folder(graph: Path) -> Path:
    """The folder that belongs to a lone ONNX file: ``reranker.onnx`` -> ``reranker-onnx``."""
    return graph.with_name(f"{graph.stem}-onnx")


def _folder_of(graph: Path) -> Path:
    for folder in (graph.parent, export_folder(graph), graph.absolute().parent.parent):
        if (folder / "config.json").is_file():
            return folder.absolute()
    raise ModelNotFoundError(
        f"{graph}: no tokenizer and config.json beside it, above it or in {export_folder(graph)}; name the exported "
        "folder"
    )


def read_config(files: ModelFiles) -> PretrainedConfig:
    """The configuration of a reranker.

    Raises:
        NotARerankerError: where the model has no classification head or more than one label.
    """
    config = AutoConfig.from_pretrained(files.base, trust_remote_code=False)
    if files.adapter:
        config.num_labels = 1
        return config
    names = config.architectures or []
    if names and not any("SequenceClassification" in name for name in names):
        raise NotARerankerError(
            f"{files.name}: is {', '.join(names)}, a backbone without a trained classification head; "
            "train a reranker from it, or name one"
        )
    if config.num_labels != 1:
        raise NotARerankerError(
            f"{files.name}: gives {config.num_labels} labels a pair; a reranker gives one relevance logit "
            "(train with num_labels 1)"
        )
    return config


def read_tokenizer(files: ModelFiles) -> PreTrainedTokenizerBase:
    """The tokenizer that lies with the model; of an adapter without one, that of the model below it."""
    folder = Path(files.model)
    own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    return AutoTokenizer.from_pretrained(files.base if files.adapter and not own else files.model)
