"""Graphs beside a model's own weights, as the hub has them (``onnx/model_int8.onnx``), for auto to measure."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ranker.config import ExportConfig
from ranker.optimization.export import write_export
from ranker.optimization.optimizer import ExportPrecision
from ranker.optimization.parity import ParityError

log = logging.getLogger(__name__)

NAMES: dict[str, str] = {"fp32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_int8.onnx"}


def export_beside(
    folder: str | Path, samples: Path | None = None, precisions: Sequence[ExportPrecision] = ("fp32", "int8")
) -> dict[str, Any]:
    """Write a graph for each precision into ``folder/onnx``; one that is there is replaced when the new one is whole.

    Args:
        folder: model folder that can be written.
        samples: GROUPS file with the user's own pairs; None: the built-in ones.

    Returns:
        precision -> outcome of the export, or ``{"refused": why}`` of one that does not rank as the model does.

    Raises:
        ValueError: where the folder is none, or the model is too large for one file.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: is not a local folder; save the model into one first")
    target = Path(folder) / "onnx"
    target.mkdir(exist_ok=True)
    outcomes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary:
        for precision in precisions:
            work = Path(temporary) / precision
            work.mkdir()
            try:
                outcomes[precision] = write_export(str(folder), samples, ExportConfig(precision=precision), work)
            except ParityError as error:
                log.warning("%s", error)
                outcomes[precision] = {"refused": str(error)}
                continue
            if (work / "model.onnx.data").exists():
                raise ValueError(f"{folder}: its weights are above 2 GB; `ranker export` writes those into a folder")
            (work / "model.onnx").replace(target / NAMES[precision])
    return outcomes
