"""Training on one GPU: tokens a second under DeepSpeed in fp16 and bf16, and the share of what the device can do.

    python jobs/mine.py jobs/medquad.yaml
    python benchmarks/training_gpu.py --groups runs/medquad/mine

Models: the bundled MiniLM (22 million weights), and two of ModernBERT's shapes (149 and 395 million) with random
weights and MiniLM's tokenizer. A row is a process of its own that goes through the project's own loop (batches from
disk, tokenised, DeepSpeed's engine, the optimiser), without Ray, whose part is to start such a process. Tokens are
those of the texts, without padding; figures are the median of the windows after the first. TFLOP/s are counted by torch
in the passes that are really made (matrix products and attention, forward and backward, padding included), and their
share is that of a plain bf16 product of two 8192 x 8192 matrices, measured in the same run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

GROUP, GROUPS_A_STEP, WINDOW = 8, 32, 2
LENGTH = 256
SIDE = 8192
# Layers, width, feed-forward width, heads, as arXiv:2412.13663 has them.
SHAPES = {"ModernBERT, 149M": (22, 768, 1152, 12), "ModernBERT, 395M": (28, 1024, 2624, 16)}
MINILM = "MiniLM-L6, 22M"
VOCABULARY = 50368
Row = dict[str, Any]


def main() -> None:
    """Print a Markdown table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=Path, required=True, help="folder of a finished stage `mine`")
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="folder or name; also gives the tokenizer")
    parser.add_argument("--models", nargs="+", default=[MINILM, *SHAPES], help="rows' models")
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp16"])
    parser.add_argument("--stages", nargs="+", type=int, default=[2, 3], help="of ZeRO")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--no-cudnn", action="store_true", help="attention by other kernels, which plan no shapes")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(json.loads(options.one))))
        return
    peak = product_peak(options.device)
    print(f"{GROUPS_A_STEP * GROUP} pairs a step, at most {LENGTH} tokens; a plain bf16 product: {peak:.0f} TFLOP/s\n")
    print("| model | precision | ZeRO | tokens/s | pairs/s | padding | TFLOP/s | of the product | GiB | loss |")
    print("|---" * 10 + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            model = options.model if name == MINILM else drawn(name, options.model, Path(folder))
            for precision in options.precisions:
                for stage in options.stages:
                    given = {"model": model, "precision": precision, "stage": stage, "steps": options.steps,
                             "groups": str(options.groups), "device": options.device,
                             "cudnn": not options.no_cudnn}  # fmt: skip
                    show(name, given, peak)


def show(name: str, given: Row, peak: float) -> None:
    """One line, from a process of its own."""
    command = [sys.executable, __file__, "--groups", given["groups"], "--one", json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing said"]
        print(f"| {name} | {given['precision']} | {given['stage']} | failed: {said[-1]} |", flush=True)
        return
    row = json.loads(done.stdout.splitlines()[-1])
    print(
        f"| {name} | {given['precision']} | {given['stage']} | {row['tokens']:,.0f} | {row['pairs']:,.0f} | "
        f"{100 * row['padding']:.1f}% | {row['tflops']:.1f} | {100 * row['tflops'] / peak:.1f}% | {row['gib']:.1f} | "
        f"{row['first']:.3f} to {row['last']:.3f} |", flush=True)  # fmt: skip


def product_peak(device: str) -> float:
    """TFLOP/s of a plain bf16 matrix product of random numbers: the median of 20."""
    side, kind = (SIDE, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    times = [seconds(lambda: left @ right, device) for _ in range(23)][3:]
    return 2 * side**3 / statistics.median(times) / 1e12


def seconds(work: Any, device: str) -> float:
    """Of ``work`` on the device."""
    if device == "cpu":
        import time

        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def drawn(name: str, tokenizer: str, folder: Path) -> str:
    """A folder with random weights of this shape and the other model's tokenizer."""
    from transformers import AutoTokenizer, ModernBertConfig, ModernBertForSequenceClassification

    from ranker.pretrained import resolve

    layers, width, inner, heads = SHAPES[name]
    words = AutoTokenizer.from_pretrained(resolve(tokenizer))
    special = {f"{key}_token_id": getattr(words, f"{key}_token_id") for key in ("pad", "cls", "sep")}
    config = ModernBertConfig(
        num_hidden_layers=layers, hidden_size=width, intermediate_size=inner, num_attention_heads=heads, num_labels=1,
        vocab_size=VOCABULARY, bos_token_id=None, eos_token_id=None, **special,
    )  # fmt: skip
    torch.manual_seed(0)
    target = str(folder / f"layers-{layers}")
    ModernBertForSequenceClassification(config).save_pretrained(target)
    words.save_pretrained(target)
    return target


def measured(given: Row) -> Row:
    """Train some steps in this process; what its log says."""
    import pyarrow.parquet as pq
    from forgetting import alone_in_group

    from ranker.config import TrainConfig
    from ranker.training.batches import write_group_file
    from ranker.training.job import GROUP_FILE, Job
    from ranker.training.loop import Place, Run
    from ranker.training.progress import LOG, read_log

    class Timed(Run):
        """Stores no checkpoint: nobody goes on from here."""

        def _save(self, measured: bool) -> None:
            pass

    section = TrainConfig.model_validate({
        "model": given["model"], "precision": given["precision"], "deepspeed": {"stage": given["stage"]}, "loss": "lce",
        "group_size": GROUP, "batch_size": GROUPS_A_STEP, "max_length": LENGTH, "epochs": 1000, "dropout": 0.0,
        "max_steps": given["steps"], "log_every": WINDOW, "checkpoint_every": given["steps"],
        "learning_rate": 5e-5, "head_learning_rate": 5e-4,
    })  # fmt: skip
    device = torch.device(given["device"])
    torch.backends.cuda.enable_cudnn_sdp(given["cudnn"])
    with tempfile.TemporaryDirectory() as folder, alone_in_group(given["device"]):
        work = Path(folder)
        groups = pq.read_table(Path(given["groups"]) / "groups.parquet")
        write_group_file(groups, work / GROUP_FILE)
        run = Timed(Job(section, 0, work, (groups.num_rows,)), Place(0, 1, device, None, lambda metrics, stored: None))
        counted = operations(run)
        run.loop()
        lines = [line for line in read_log(work / LOG, given["steps"]) if "tokens_per_second" in line][1:]
        gib = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
        run.engine.destroy()
    rates = {name: statistics.median(line[f"{name}_per_second"] for line in lines) for name in ("tokens", "pairs")}
    padding = statistics.mean(line["padding"] for line in lines)
    return {**rates, "padding": padding, "tflops": counted * rates["tokens"] / 1e12, "gib": gib,
            "first": lines[0]["loss"], "last": lines[-1]["loss"]}  # fmt: skip


def operations(run: Any) -> float:
    """Operations of a step for each token that is none of the padding, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    from ranker.training.batches import collate
    from ranker.training.objective import prepare
    from ranker.training.scores import score_batch

    rows = run.order.rows(0)
    groups = prepare([run.groups[row] for row in rows], run.train, (run.job.seed, 0))
    batch = collate(groups, run.tokenizer, run.train.max_length)
    with FlopCounterMode(display=False) as counter:
        scores, _ = score_batch(run.engine, batch, run.pad, run.how)
        run.engine.backward(scores.sum() * 0.0)
    run.engine.zero_grad()
    return float(counter.get_total_flops()) / int(batch.lengths.sum())


if __name__ == "__main__":
    main()
