"""Everyone who scores pairs in ``benchmarks/scoring.py``, each in a process of its own that obeys lines of JSON.

A contestant is a function of a folder and a length that returns ``score(lists) -> scores of each list``, where a list
is a query with its documents. Peers that are not installed, or do not take these weights, say so when they are opened.
"""

import asyncio
import contextlib
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Lists = list[tuple[str, list[str]]]
Score = Callable[[Lists], list[list[float]]]


def ranker(folder: Path, max_length: int, **settings: Any) -> Score:
    """This project."""
    from ranker.config import ScoringConfig
    from ranker.scoring import load_scorer

    scorer = load_scorer(folder, ScoringConfig(max_length=max_length, **settings), "cpu")
    print(scorer, file=sys.stderr)

    def score(lists: Lists) -> list[list[float]]:
        logits = iter(scorer.score([(query, text) for query, texts in lists for text in texts]).tolist())
        return [[next(logits) for _ in texts] for _, texts in lists]

    return score


def cross_encoder(folder: Path, max_length: int, **settings: Any) -> Score:
    """sentence-transformers; its defaults but for what is named."""
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", max_length=max_length, **settings)

    def score(lists: Lists) -> list[list[float]]:
        pairs = [(query, text) for query, texts in lists for text in texts]
        found = iter(model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False).tolist())
        return [[next(found) for _ in texts] for _, texts in lists]

    return score


def cross_encoder_bf16(folder: Path, max_length: int) -> Score:
    """The same in bf16."""
    import torch

    return cross_encoder(folder, max_length, model_kwargs={"dtype": torch.bfloat16})


def cross_encoder_openvino_bf16(folder: Path, max_length: int) -> Score:
    """OpenVINO told to compute in bf16."""
    hint = {"ov_config": {"INFERENCE_PRECISION_HINT": "bf16"}}
    return cross_encoder(folder, max_length, backend="openvino", model_kwargs=hint)


def infinity(folder: Path, max_length: int, **settings: Any) -> Score:
    """Infinity's engine, without its server; it takes the length from the folder."""
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    arguments = EngineArgs(
        model_name_or_path=str(folder), engine="torch", device="cpu", bettertransformer=False, compile=False,
        model_warmup=False, **settings,
    )  # fmt: skip
    loop, engine = asyncio.new_event_loop(), AsyncEmbeddingEngine.from_args(arguments)
    loop.run_until_complete(engine.astart())

    async def ask(lists: Lists) -> list[list[float]]:
        answers = await asyncio.gather(
            *(engine.rerank(query=query, docs=texts, raw_scores=True) for query, texts in lists)
        )
        found = []
        for results, _ in answers:
            scores = {result.index: float(result.relevance_score) for result in results}
            found.append([scores[place] for place in range(len(scores))])
        return found

    return lambda lists: loop.run_until_complete(ask(lists))


def flashrank(folder: Path, max_length: int) -> Score:
    """FlashRank with our graph under the name of one of its own models."""
    from flashrank import Ranker, RerankRequest
    from flashrank.Config import model_file_map

    name = "ms-marco-MiniLM-L-12-v2"
    place = folder.parent / "flashrank" / name
    place.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.suffix == ".json" and not (place / file.name).exists():
            (place / file.name).symlink_to(file)
    if not (place / model_file_map[name]).exists():
        (place / model_file_map[name]).symlink_to(folder / "model.onnx")
    if not (place / "special_tokens_map.json").exists():
        (place / "special_tokens_map.json").write_text("{}")
    peer = Ranker(name, cache_dir=str(place.parent), max_length=max_length, log_level="ERROR")

    def score(lists: Lists) -> list[list[float]]:
        found = []
        for query, texts in lists:
            passages = [{"id": place, "text": text} for place, text in enumerate(texts)]
            scores = {row["id"]: float(row["score"]) for row in peer.rerank(RerankRequest(query, passages))}
            found.append([scores[place] for place in range(len(texts))])
        return found

    return score


def fastembed(folder: Path, max_length: int) -> Score:
    """Our graph as a custom model of fastembed; it takes the length from the folder."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model("own/reranker", ModelSource(url="file://unused"), model_file="model.onnx")
    peer = TextCrossEncoder("own/reranker", specific_model_path=str(folder))
    return lambda lists: [[float(score) for score in peer.rerank(query, texts)] for query, texts in lists]


# name -> (folder, opener, settings)
CONTESTANTS: dict[str, tuple[str, Callable[..., Score], dict[str, Any]]] = {
    "CrossEncoder, torch fp32 (its default)": ("torch", cross_encoder, {}),
    "CrossEncoder, torch bf16": ("torch", cross_encoder_bf16, {}),
    "CrossEncoder, ONNX fp32 (our graph)": ("fp32", cross_encoder, {"backend": "onnx"}),
    "CrossEncoder, ONNX int8 (our graph)": ("int8", cross_encoder, {"backend": "onnx"}),
    "CrossEncoder, OpenVINO fp32": ("openvino", cross_encoder, {"backend": "openvino"}),
    "CrossEncoder, OpenVINO bf16": ("openvino", cross_encoder_openvino_bf16, {}),
    "Infinity 0.0.78, torch": ("torch", infinity, {}),
    "Infinity 0.0.78, torch bf16": ("torch", infinity, {"dtype": "bfloat16"}),
    "FlashRank, ONNX fp32 (our graph)": ("fp32", flashrank, {}),
    "fastembed, ONNX fp32 (our graph)": ("fp32", fastembed, {}),
    "ranker, torch fp32": ("torch", ranker, {"engine": "torch", "precision": "fp32"}),
    "ranker, torch bf16": ("torch", ranker, {"engine": "torch", "precision": "bf16"}),
    "ranker, torch bf16, two lanes": ("torch", ranker, {"engine": "torch", "precision": "bf16", "lanes": 2}),
    "ranker, ONNX fp32": ("fp32", ranker, {"engine": "onnx"}),
    "ranker, ONNX int8": ("int8", ranker, {"engine": "onnx"}),
    "ranker, OpenVINO fp32": ("fp32", ranker, {"engine": "openvino"}),
    "ranker, OpenVINO bf16": ("fp32", ranker, {"engine": "openvino", "precision": "bf16"}),
    "ranker, auto": ("auto", ranker, {}),
    "ranker, auto, cascade of 64 tokens, 20 kept": ("auto", ranker, {"cascade_tokens": 64, "cascade_keep": 20}),
}


def versions() -> list[str]:
    """Of the libraries that this process has loaded."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in (
        "torch", "transformers", "onnxruntime", "sentence-transformers", "openvino", "fastembed", "flashrank",
        "infinity_emb", "optimum",
    ):  # fmt: skip
        if name.replace("-", "_") in sys.modules:
            with contextlib.suppress(PackageNotFoundError):
                found.append(f"{name} {version(name)}")
    return found


def serve(name: str, base: Path, max_length: int) -> None:
    """Open one contestant and answer each line of JSON (a list of lists) with its scores and what they took."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    logging.disable(logging.WARNING)

    def say(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    begin = time.perf_counter()
    folder, opener, settings = CONTESTANTS[name]
    try:
        score = opener(base / folder, max_length, **settings)
        score([("ready", ["ready"])])
    except Exception as error:
        say({"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]})
        return
    say({"start": time.perf_counter() - begin, "versions": versions()})
    for line in sys.stdin:
        lists = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        scores = score(lists)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        say({"scores": scores, "wall": wall, "cpu": cpu, "peak": peak})


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
