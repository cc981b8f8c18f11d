"""Training speed beside `sentence_transformers.CrossEncoderTrainer`: pairs a second with the same model and pairs.

Both fine-tune the same backbone on the same (query, document) pairs of a finished stage `mine`, at the same length
limit and the same precision, and their own steps are timed after the first ones. The peer has its documented recipe:
binary cross-entropy, batches of 64 pairs, dropout as the folder says. "N x M" is N processes of M threads; the peer
with two processes is started by torchrun. Runs are interleaved and repeated; the table has medians.

    python jobs/mine.py jobs/medquad.yaml
    python benchmarks/training.py --groups runs/medquad/mine --repeat 3
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PEER_BATCH = 64  # pairs
GROUP, GROUPS_A_STEP = 8, 8  # the same number of pairs a step
WARM_STEPS = 2
SYSTEMS = {
    "sentence-transformers 1 x 2": (1, 2),
    "sentence-transformers 1 x 1": (1, 1),
    "sentence-transformers 2 x 1": (2, 1),
    "ranker 1 x 2": (1, 2),
    "ranker 1 x 1": (1, 1),
    "ranker 2 x 1": (2, 1),
}
Given = dict[str, Any]


def with_ranker(given: Given, workers: int, threads: int) -> float:
    """The stage `train`; pairs a second of its log without the first window."""
    from ranker.config import Experiment
    from ranker.training.progress import LOG
    from ranker.training.trainer import fit

    steps = WARM_STEPS + given["steps"]
    with tempfile.TemporaryDirectory() as folder:
        overrides = {
            "output_dir": folder,
            "train.groups": str(Path(given["groups"]) / "groups.parquet"),
            "train.model": given["model"],
            "train.batch_size": GROUPS_A_STEP,
            "train.group_size": GROUP,
            "train.max_length": given["max_length"],
            "train.max_steps": steps,
            "train.epochs": 1000,
            "train.precision": given["precision"],
            "train.num_workers": workers,
            "train.cpus_per_worker": threads,
            "train.checkpoint_every": steps,
            "train.log_every": WARM_STEPS,
            "train.freeze_embeddings": False,
            "ray.num_cpus": 2,
        }
        done = fit(Experiment().with_overrides(overrides))
        lines = [json.loads(line) for line in (done.folder / LOG).read_text().splitlines()]
    timed = [line for line in lines if "pairs_per_second" in line and line["step"] > WARM_STEPS]
    pairs = WARM_STEPS * GROUP * GROUPS_A_STEP
    return len(timed) * pairs / sum(pairs / line["pairs_per_second"] for line in timed)


def with_peer(given: Given, workers: int, threads: int) -> float:
    """The peer's trainer; pairs a second after the first steps."""
    import torch
    from datasets import Dataset
    from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
    from transformers import TrainerCallback

    from ranker.pretrained import resolve
    from ranker.training.batches import cut

    torch.set_num_threads(threads)
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    rows = [
        {"query": group["query"], "document": group["documents"][place], "label": float(group["labels"][place] > 0)}
        for group in _groups(given)
        for place in cut(group["labels"], GROUP)
    ]
    steps = WARM_STEPS + given["steps"]
    model = CrossEncoder(resolve(given["model"]), num_labels=1, device="cpu", max_length=given["max_length"])
    with tempfile.TemporaryDirectory() as folder:
        arguments = CrossEncoderTrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=PEER_BATCH // workers,
            learning_rate=2e-5,
            warmup_steps=0.1,
            bf16=given["precision"] == "bf16",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            ddp_backend="gloo" if workers > 1 else None,
            ddp_find_unused_parameters=False if workers > 1 else None,
        )
        loss = BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(float(GROUP - 1)))
        data = Dataset.from_list(rows)
        trainer = CrossEncoderTrainer(model=model, args=arguments, train_dataset=data, loss=loss, callbacks=[Clock()])
        trainer.train()
    return given["steps"] * PEER_BATCH / (times[-1] - times[WARM_STEPS - 1])


def _groups(given: Given) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    table = pq.read_table(Path(given["groups"]) / "groups.parquet", columns=["query", "documents", "labels"])
    # The groups of ranker's first epoch, whose pairs the peer shuffles again.
    return table.slice(0, max(256, 2 * given["steps"] * GROUPS_A_STEP)).to_pylist()


def measured(system: str, given: Given, folder: Path) -> float:
    """Pairs a second of one run in processes of its own."""
    workers, threads = SYSTEMS[system]
    result, log = folder / "result.json", folder / "log.txt"
    result.unlink(missing_ok=True)
    start = [sys.executable]
    if system.startswith("sentence") and workers > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
    command = [*start, __file__, "--run", system, json.dumps(given), str(result)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    with log.open("w") as stream:
        done = subprocess.run(command, stdout=stream, stderr=stream, env=environment)
    if done.returncode:
        raise RuntimeError(f"{system}: {log.read_text()[-3000:]}")
    return float(json.loads(result.read_text()))


def run_one(system: str, given: Given, result: Path) -> None:
    """What a process of its own does."""
    door = with_ranker if system.startswith("ranker") else with_peer
    rate = door(given, *SYSTEMS[system])
    if os.environ.get("RANK", "0") == "0":
        result.write_text(json.dumps(rate))


def main() -> None:
    """Print a table; every row is a median."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", default="runs/medquad/mine", help="a finished stage `mine`")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--precision", help="of both: fp32 or bf16. None: bf16 where the processor has it")
    parser.add_argument("--max-length", type=int, default=192)
    parser.add_argument("--steps", type=int, default=12, help="timed, of 64 pairs")
    parser.add_argument("--systems", nargs="+", default=[*SYSTEMS], choices=[*SYSTEMS])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # By default Ray's workers give way to everything else on the machine, and the peer does not.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    if options.run:
        run_one(options.run[0], json.loads(options.run[1]), Path(options.run[2]))
        return
    from ranker.machine import cpu_has_bf16

    precision = options.precision or ("bf16" if cpu_has_bf16() else "fp32")
    given = {"groups": str(Path(options.groups).absolute()), "model": options.model, "precision": precision,
             "max_length": options.max_length, "steps": options.steps}  # fmt: skip
    rates: dict[str, list[float]] = {system: [] for system in options.systems}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.repeat):
            for system in options.systems:
                rates[system].append(measured(system, given, Path(folder)))
    first = statistics.median(rates[options.systems[0]])
    print(f"{precision}, {options.max_length} tokens at most, {options.steps * PEER_BATCH} pairs a run\n")
    print("| system | pairs/s | against the first | all runs |\n|---|---|---|---|")
    for system, found in rates.items():
        rate = statistics.median(found)
        print(f"| {system} | {rate:.1f} | {rate / first:.2f} | {', '.join(f'{each:.1f}' for each in found)} |")


if __name__ == "__main__":
    main()
