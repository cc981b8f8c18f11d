"""The friendly class around the export stage."""

import os
import shutil
from pathlib import Path
from typing import Any, Literal

from ranker.config import Experiment
from ranker.manifest import Done
from ranker.pretrained import resolve
from ranker.scoring.model_folder import export_folder

ExportPrecision = Literal["fp32", "fp16", "int8"]


class ModelOptimizer:
    """Makes a trained reranker smaller and free of torch.

    Args:
        model_path: model folder (LoRA adapters are merged) or hub id.

    Raises:
        ModelNotFoundError: where there is no such model.
    """

    def __init__(self, model_path: str | Path) -> None:
        self.model_path = resolve(model_path)

    def export_to_onnx(
        self,
        output_path: str | Path,
        quantize: bool = False,
        precision: ExportPrecision | None = None,
        **settings: Any,
    ) -> Done:
        """Export to ONNX, checked against torch; ``result.folder`` is the folder, ``result.outcome`` the check.

        Args:
            output_path: a folder, which gets everything; or a name ending in ``.onnx``, as in
                ``models/reranker.onnx``: then that file is the graph, ready for ``onnxruntime``, and
                ``models/reranker-onnx/`` beside it is the whole folder with tokenizer, configuration and example.
                ``load_scorer`` opens either.
            quantize: int8 weights. precision: ``fp32``, ``fp16`` or ``int8``; None: int8 where ``quantize``, else fp32.
            **settings: other fields of the ``export`` section, such as ``min_rank_correlation``.

        Raises:
            ValueError: where ``quantize`` and ``precision`` contradict each other.
            ParityError: where the graph does not score as the model; nothing is written.
        """
        path = Path(output_path).expanduser().absolute()
        chosen = choose_precision(quantize, precision)
        as_file = path.suffix == ".onnx"
        folder = export_folder(path) if as_file else path
        sections = {"model": self.model_path, "precision": chosen, "output_dir": str(folder), **settings}
        # A model that a pipeline trained has its mined pairs beside it, and is checked on those.
        experiment = Experiment(output_dir=str(Path(self.model_path).parent))
        from ranker.optimization.export import export

        done = export(experiment.with_overrides({f"export.{name}": value for name, value in sections.items()}))
        if as_file:
            publish_file(done.folder / "model.onnx", path)
        return done


def choose_precision(quantize: bool, precision: ExportPrecision | None) -> ExportPrecision:
    """The one precision that both arguments mean.

    Raises:
        ValueError: where they contradict each other.
    """
    if precision is None:
        return "int8" if quantize else "fp32"
    if quantize != (precision == "int8"):
        raise ValueError(
            f"quantize={quantize} with precision={precision!r}: quantize=True means int8; leave one of them out"
        )
    return precision


def publish_file(graph: Path, path: Path) -> None:
    """Put ``graph`` under ``path`` as well, a hard link where the disk can, else a copy; replaced by one rename.

    Raises:
        ValueError: where the weights lie in a second file, so that no single file can hold the model.
    """
    if graph.with_name(f"{graph.name}.data").exists():
        raise ValueError(f"{graph.parent}: this model is above 2 GB and has two files; name a folder as output_path")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; choose another output_path")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(graph, temporary)
        except OSError:
            shutil.copyfile(graph, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
