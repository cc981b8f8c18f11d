"""The export stage: a reranker as one folder that runs with ONNX Runtime alone, checked against torch."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ranker.config import Experiment, ExportConfig
from ranker.manifest import Done, fingerprint_path, read_manifest, run_stage, write_json, write_text
from ranker.optimization.parity import breach, refusal
from ranker.pretrained import resolve
from ranker.scoring import graph
from ranker.scoring.batches import Batch, pad_batch, plan_batches
from ranker.scoring.first_token import trim_last_layer
from ranker.scoring.model_folder import find_model, read_config, read_tokenizer
from ranker.scoring.onnx_engine import OnnxEngine
from ranker.scoring.pairs import encode_pairs, longest_pair
from ranker.scoring.parity import Parity, compare
from ranker.scoring.row_scale import with_row_scales
from ranker.scoring.samples import Samples, sample_file, sample_pairs
from ranker.scoring.scorer import Scorer
from ranker.scoring.torch_engine import TorchEngine, load_model

log = logging.getLogger(__name__)

# In the order they are tried; the first that stays inside the tolerance is published.
RECIPES: dict[str, dict[str, Callable[[Path, Path, "_Task"], None]]] = {
    "fp32": {"fp32": lambda source, target, task: _copy(source, target)},
    "fp16": {"fp16": lambda source, target, task: graph.write_half(source, target)},
    "int8": {
        "dynamic": lambda source, target, task: graph.write_dynamic_int8(source, target),
        "rows": lambda source, target, task: _write_rows(target, task),
        "static": lambda source, target, task: graph.write_static_int8(source, target, task.calibration()),
        "mixed": lambda source, target, task: graph.write_mixed_int8(source, target),
        "blockwise": lambda source, target, task: graph.write_blockwise_int8(source, target),
    },
}
# Tokens a calibration batch.
CALIBRATION_TOKENS = 2048


@dataclass(frozen=True)
class _Task:
    """What a graph is compared on, and what static int8 is calibrated on."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    samples: Samples
    exact: np.ndarray
    calibrate_on: list[tuple[str, str]]
    network: PreTrainedModel

    def calibration(self) -> list[Batch]:
        """Batches of the calibration pairs."""
        encoded = encode_pairs(self.tokenizer, self.calibrate_on, self.max_length)
        columns = {name: encoded[name] for name in encoded}
        plan = plan_batches([len(ids) for ids in columns["input_ids"]], CALIBRATION_TOKENS)
        fill = {"input_ids": self.tokenizer.pad_token_id or 0}
        return [pad_batch(columns, rows, fill, self.tokenizer.padding_side) for rows in plan]


def export(config: Experiment) -> Done:
    """The folder of ``config.folder("export")``: ``model.onnx``, tokenizer, configuration, parity report, example.

    The model is ``export.model`` or the finished folder of `train`; LoRA adapters are merged. It is compared with
    torch fp32 on pairs of the finished `mine` stage where there is one, else on built-in ones; static int8 is
    calibrated on other pairs of the same. The recipes of int8 are tried in turn, fastest first, and the first that is
    faithful is published.

    Raises:
        StageError: where `train` has not finished. ModelNotFoundError, NotARerankerError: see ``load_scorer``.
        ParityError: where no recipe stays inside the tolerances; nothing is published.
    """
    model, identity = _model(config)
    file = sample_file(config.folder("mine"))
    inputs = {"model": identity, "samples": fingerprint_path(file) if file else "built-in"}
    settings = {**config.export.identity(), "model": None}
    return run_stage(
        "export",
        config.folder("export"),
        config=settings,
        inputs=inputs,
        make=lambda work: write_export(model, file, config.export, work),
    )


def write_export(model: str, samples_from: Path | None, config: ExportConfig, work: Path) -> dict[str, Any]:
    """Write the export of ``model`` into ``work`` and return its outcome; see :func:`export` for the files."""
    files = find_model(model)
    tokenizer, model_config = read_tokenizer(files), read_config(files)
    max_length = longest_pair(tokenizer, model_config)
    network = load_model(files)
    calibrate_on = sample_pairs(samples_from, config.num_calibration)
    # Other queries than the calibration's; the built-in pairs are too few to be shared out.
    samples = sample_pairs(samples_from, config.num_samples, skip=max(1, config.num_calibration // 4))
    log.info("export: comparing on %d pairs of at most %d tokens", len(samples.pairs), max_length)
    exact = Scorer(TorchEngine(network, "fp32", "cpu"), tokenizer, max_length).score(samples.pairs)
    trim_last_layer(network)
    task = _Task(tokenizer, max_length, samples, exact, calibrate_on.pairs, network)
    source = work / "fp32.onnx"
    graph.write_graph(network, _example(tokenizer, samples.pairs, max_length), source)
    chosen, tries = _first_faithful(source, work, config, task)
    for left in work.glob("fp32.onnx*"):
        left.unlink()
    graph.mark(work / "model.onnx", config.precision)
    # Of an adapter the configuration is the base's, which says what the base is.
    model_config.architectures = [type(network).__name__]
    _write_companions(tokenizer, model_config, max_length, work)
    report = {"model": model, "precision": config.precision, **chosen.plain(), "tries": [t.plain() for t in tries]}
    write_json(work / "parity.json", report)
    return {key: value for key, value in report.items() if key != "tries"}


def _first_faithful(source: Path, work: Path, config: ExportConfig, task: _Task) -> tuple[Parity, list[Parity]]:
    tries: list[Parity] = []
    recipes = RECIPES[config.precision]
    if config.precision == "int8" and config.int8_recipe != "auto":
        recipes = {config.int8_recipe: recipes[config.int8_recipe]}
    for recipe, write in recipes.items():
        for left in work.glob("model.onnx*"):
            left.unlink()
        write(source, work / "model.onnx", task)
        found = Scorer(OnnxEngine(work / "model.onnx"), task.tokenizer, task.max_length).score(task.samples.pairs)
        megabytes = sum(file.stat().st_size for file in work.glob("model.onnx*")) / 1e6
        parity = compare(recipe, task.exact, found, task.samples.pairs, task.samples.labels, megabytes)
        tries.append(parity)
        problem = breach(parity, config)
        log.info(
            "export: %s: %s", recipe, problem or f"faithful, a logit differs by {parity.largest_difference:.1g} at most"
        )
        if problem is None:
            return parity, tries
    raise refusal(tries, config)


def _model(config: Experiment) -> tuple[str, str]:
    """The model to export, and its fingerprint."""
    if config.export.model is None:
        folder = config.folder("train")
        return str(folder), read_manifest(folder).key
    model = resolve(config.export.model)
    return model, fingerprint_path(Path(model)) if Path(model).is_dir() else model


def _example(tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[str, str]], max_length: int) -> Batch:
    encoded = encode_pairs(tokenizer, (pairs * 2)[:2], max_length)
    columns = {name: encoded[name] for name in encoded}
    return pad_batch(columns, np.arange(2), {"input_ids": tokenizer.pad_token_id or 0}, tokenizer.padding_side)


def _write_companions(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, max_length: int, work: Path
) -> None:
    # The folder alone must say where a pair is cut, also to a reader who has only `tokenizers`.
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(work)
    config.save_pretrained(work)
    write_text(work / "example.py", resources("ranker.optimization").joinpath("onnx_example.txt").read_text("utf-8"))


def _write_rows(target: Path, task: _Task) -> None:
    # A graph of its own, since the scales are part of it.
    source = target.with_name("rows.onnx")
    example = _example(task.tokenizer, task.samples.pairs, task.max_length)
    try:
        graph.write_graph(with_row_scales(task.network, task.calibration()), example, source)
        graph.write_dynamic_int8(source, target)
    finally:
        for left in target.parent.glob("rows.onnx*"):
            left.unlink()


def _copy(source: Path, target: Path) -> None:
    data = source.with_name(f"{source.name}.data")
    if not data.exists():
        shutil.copyfile(source, target)
        return
    import onnx

    model = onnx.load(source)
    onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")
