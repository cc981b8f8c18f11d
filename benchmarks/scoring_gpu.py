"""Pairs a second on one GPU in bf16, beside `sentence_transformers.CrossEncoder` with the same weights and pairs.

    python jobs/mine.py jobs/medquad.yaml
    python benchmarks/scoring_gpu.py --groups runs/medquad/mine

Models as in benchmarks/training_gpu.py, each with a head of random weights: what they say is nothing, how long it takes
is the same. All share one process and the card; rounds are interleaved after a warm one, and figures are medians.
Scores are compared with CrossEncoder's in fp32 on some of the pairs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from training_gpu import LENGTH, MINILM, SHAPES, drawn

Pairs = Sequence[tuple[str, str]]
COMPARED = 200


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=Path, required=True, help="folder of a finished stage `mine`")
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="folder or name; also gives the tokenizer")
    parser.add_argument("--models", nargs="+", default=[MINILM, next(iter(SHAPES))], help="rows' models")
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    groups = pq.read_table(options.groups / "groups.parquet", columns=["query", "documents"]).to_pylist()
    pairs = [(group["query"], text) for group in groups for text in group["documents"]][: options.pairs]
    print(f"{len(pairs)} pairs, at most {LENGTH} tokens\n")
    print("| model | system | pairs/s | largest difference |\n|---|---|---|---|")
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            source = with_head(name, options.model, Path(folder))
            compare(name, source, pairs, options)


def with_head(name: str, model: str, folder: Path) -> str:
    """A folder of a cross-encoder: MiniLM with a new head, or a shape with random weights."""
    if name != MINILM:
        return drawn(name, model, folder)
    from ranker.config import TrainConfig
    from ranker.training.model import load_model

    made, tokenizer = load_model(TrainConfig(model=model, max_length=LENGTH, dropout=None), seed=0)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def compare(name: str, source: str, pairs: Pairs, options: argparse.Namespace) -> None:
    """One model by all systems."""
    from sentence_transformers import CrossEncoder

    from ranker.config import ScoringConfig
    from ranker.scoring import load_scorer

    device = options.device
    half: dict[str, Any] = {"model_kwargs": {"dtype": torch.bfloat16}}
    raw = {"activation_fn": torch.nn.Identity(), "show_progress_bar": False, "convert_to_numpy": True}
    exact = CrossEncoder(source, device=device, max_length=LENGTH, model_kwargs={"dtype": torch.float32})
    expected = exact.predict(list(pairs[:COMPARED]), **raw)
    del exact
    peer = CrossEncoder(source, device=device, max_length=LENGTH, **half)
    ours = load_scorer(source, ScoringConfig(engine="torch", precision="bf16", max_length=LENGTH), device)
    systems: dict[str, Callable[[Pairs], np.ndarray]] = {
        "ranker": ours.score,
        "CrossEncoder": lambda some: peer.predict(list(some), **raw),
        "CrossEncoder, batches of 256": lambda some: peer.predict(list(some), batch_size=256, **raw),
    }
    times: dict[str, list[float]] = {system: [] for system in systems}
    for _ in range(options.repeat + 1):
        for system, score in systems.items():
            begin = time.perf_counter()
            score(pairs)
            times[system].append(time.perf_counter() - begin)
    for system, score in systems.items():
        rate = len(pairs) / statistics.median(times[system][1:])
        off = np.abs(np.asarray(score(pairs[:COMPARED]), dtype=np.float64) - expected).max()
        print(f"| {name} | {system} | {rate:,.0f} | {off:.4f} |", flush=True)


if __name__ == "__main__":
    main()
