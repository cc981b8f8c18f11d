"""The export stage: a reranker as one folder that runs with ONNX Runtime alone, checked against torch."""

import logging
import shutil
from collections.abc import Callable
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from ranker.config import Experiment, ExportConfig
from ranker.manifest import Done, fingerprint_path, read_manifest, run_stage, write_json, write_text
from ranker.optimization import graph
from ranker.optimization.parity import Parity, breach, compare, refusal
from ranker.optimization.samples import Pair, sample_file, sample_pairs
from ranker.pretrained import resolve
from ranker.scoring.batches import Batch, pad_batch
from ranker.scoring.model_folder import find_model, read_config, read_tokenizer
from ranker.scoring.onnx_engine import OnnxEngine
from ranker.scoring.pairs import encode_pairs, longest_pair
from ranker.scoring.scorer import Scorer
from ranker.scoring.torch_engine import TorchEngine, load_model

log = logging.getLogger(__name__)

# In the order they are tried; the first that stays inside the tolerance is published.
RECIPES: dict[str, dict[str, Callable[[Path, Path], None]]] = {
    "fp32": {"fp32": lambda source, target: _copy(source, target)},
    "fp16": {"fp16": graph.write_half},
    "int8": {"dynamic": graph.write_dynamic_int8, "blockwise": graph.write_blockwise_int8},
}


def export(config: Experiment) -> Done:
    """The folder of ``config.folder("export")``: ``model.onnx``, tokenizer, configuration, parity report, example.

    The model is ``export.model`` or the finished folder of `train`; LoRA adapters are merged. It is compared with
    torch fp32 on pairs of the finished `mine` stage where there is one, else on built-in ones. int8 is tried with
    one scale a channel and then with one scale a block of 32, and is published with the first that is faithful.

    Raises:
        StageError: where `train` has not finished. ModelNotFoundError, NotARerankerError: see ``load_scorer``.
        ParityError: where no recipe stays inside the tolerances; nothing is published.
    """
    model, identity = _model(config)
    samples = sample_file(config.folder("mine"))
    inputs = {"model": identity, "samples": fingerprint_path(samples) if samples else "built-in"}
    settings = {**config.export.identity(), "model": None}
    return run_stage(
        "export",
        config.folder("export"),
        config=settings,
        inputs=inputs,
        make=lambda work: write_export(model, sample_pairs(samples, config.export.num_samples), config.export, work),
    )


def write_export(model: str, pairs: list[Pair], config: ExportConfig, work: Path) -> dict[str, Any]:
    """Write the export of ``model`` into ``work`` and return its outcome; see :func:`export` for the files."""
    files = find_model(model)
    tokenizer, model_config = read_tokenizer(files), read_config(files)
    max_length = longest_pair(tokenizer, model_config)
    network = load_model(files)
    log.info("export: comparing on %d pairs of at most %d tokens", len(pairs), max_length)
    expected = Scorer(TorchEngine(network, "fp32", "cpu"), tokenizer, max_length).score(pairs)
    source = work / "fp32.onnx"
    graph.write_graph(network, _example(tokenizer, pairs, max_length), source)
    chosen, tries = _first_faithful(source, work, config, (tokenizer, max_length, pairs, expected))
    for left in work.glob("fp32.onnx*"):
        left.unlink()
    graph.mark(work / "model.onnx", config.precision)
    _write_companions(tokenizer, model_config, max_length, work)
    report = {"model": model, "precision": config.precision, **chosen.plain(), "tries": [t.plain() for t in tries]}
    write_json(work / "parity.json", report)
    return {key: value for key, value in report.items() if key != "tries"}


def _first_faithful(
    source: Path, work: Path, config: ExportConfig, task: tuple[PreTrainedTokenizerBase, int, list[Pair], np.ndarray]
) -> tuple[Parity, list[Parity]]:
    tokenizer, max_length, pairs, expected = task
    tries: list[Parity] = []
    for recipe, write in RECIPES[config.precision].items():
        for left in work.glob("model.onnx*"):
            left.unlink()
        write(source, work / "model.onnx")
        found = Scorer(OnnxEngine(work / "model.onnx"), tokenizer, max_length).score(pairs)
        megabytes = sum(file.stat().st_size for file in work.glob("model.onnx*")) / 1e6
        parity = compare(recipe, expected, found, megabytes)
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


def _example(tokenizer: PreTrainedTokenizerBase, pairs: list[Pair], max_length: int) -> Batch:
    encoded = encode_pairs(tokenizer, (pairs * 2)[:2], max_length)
    columns = {name: encoded[name] for name in encoded}
    return pad_batch(columns, np.arange(2), {"input_ids": tokenizer.pad_token_id or 0}, tokenizer.padding_side)


def _write_companions(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, max_length: int, work: Path
) -> None:
    # The folder alone must say where a pair is cut, also to a reader who has only `tokenizers`.
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(work)
    if not config.architectures:
        config.architectures = [f"{config.model_type.title()}ForSequenceClassification"]
    config.save_pretrained(work)
    write_text(work / "example.py", resources("ranker.optimization").joinpath("onnx_example.txt").read_text("utf-8"))


def _copy(source: Path, target: Path) -> None:
    data = source.with_name(f"{source.name}.data")
    if not data.exists():
        shutil.copyfile(source, target)
        return
    import onnx

    model = onnx.load(source)
    onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")
