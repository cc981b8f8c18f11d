"""What helps against forgetting: a cross-encoder is fine-tuned on one collection in many ways and measured elsewhere.

    python benchmarks/forgetting.py HOME.zip --away FIRST.zip SECOND.zip --work runs/forgetting
    python benchmarks/forgetting.py HOME.zip --away FIRST.zip --work runs/forgetting --only "mix + distill"

Each row is one run of the project's own training loop in this process, on its CPU or one CUDA GPU, without Ray, from
the bundled MiniLM with a new head. It learns from HOME's train queries, and where it says "mix" from `pydocs` (general
text) too. NDCG@10 of the retriever's 30 best documents in the model's order, relevant documents that the retriever
missed counted as such; behind the stroke the same with a quarter of the retriever's score, both standardised in each
list. Away is what no run learns from. With ``--work`` a second run finds the vectors and the rows that are there.
"""

import argparse
import gc
import json
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.distributed
from forgetting_inputs import TRAIN_DEPTH, Draw, Lists, Store, groups_of, lists_of, open_encoded
from safetensors.torch import load_file

from ranker.config import ScoringConfig, TrainConfig
from ranker.machine import available_cpus
from ranker.manifest import fingerprint, fingerprint_path
from ranker.pretrained import BUNDLED
from ranker.scoring import load_scorer
from ranker.training.batches import write_group_file
from ranker.training.checkpoint import write_model
from ranker.training.engine import name_accelerator
from ranker.training.job import GROUP_FILE, OUTCOME, WEIGHTS, Job
from ranker.training.loop import Place, Run
from ranker.training.model import load_tokenizer
from ranker.training.progress import TrainingError

PAIRS_A_STEP = 128
TOKENS, GENERAL_TOKENS = 256, 128  # of a text for the retriever
GENERAL_TEST_QUERIES = 200
COMMON: dict[str, Any] = {
    "model": BUNDLED, "max_length": 192, "group_size": 8, "batch_size": 16, "epochs": 1_000_000, "schedule": "linear",
    "warmup_ratio": 0.1, "dropout": 0.0, "learning_rate": 5e-5, "head_learning_rate": 1e-3, "loss": "lce",
    "deepspeed": {"stage": 0}, "precision": "auto", "num_workers": 1,
}  # fmt: skip
MARGIN = 0.05
HOME_DRAWS = {"top": Draw(7, 0, TRAIN_DEPTH, MARGIN, drawn=False), "drawn": Draw(5, 2, margin=MARGIN)}
GENERAL_DRAWS = {"general": Draw(5, 2), "general, short": Draw(2, 1)}


@dataclass(frozen=True)
class Lever:
    """One row: what differs from labels alone at a learning rate of 5e-5.

    Args:
        changes: of the section `train`. home, general: names of the groups. budget: factor on the pairs.
        back: how far the backbone of the run ``of`` is moved back to its start; nothing is trained then.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    home: str = "top"
    general: str = "general"
    budget: float = 1.0
    back: float = 0.0
    of: str | None = None


def mixed(rate: float = 3e-4, share: float = 0.5, weight: float = 0.5, **more: Any) -> dict[str, Any]:
    """Changes that take general text into every batch and distil the retriever's cosines."""
    mix = [{"groups": "pydocs", "share": share}]  # who reads the groups by this name is the stage, not the loop
    return {"learning_rate": rate, "mix": mix, "distill": {"weight": weight}, **more}


BOTH = "mix + distill, 3e-4"
LEVERS = [
    Lever("labels, 5e-5"),
    Lever("labels, 1e-4", {"learning_rate": 1e-4}),
    Lever("labels, 3e-4", {"learning_rate": 3e-4}),
    *(Lever(f"labels, 3e-4, averaged {back}", {"learning_rate": 3e-4}, back=back, of="labels, 3e-4")
      for back in (0.2, 0.4, 0.6)),
    Lever("drawn negatives, 5e-5", home="drawn"),
    Lever("distill 0.5, 5e-5", {"distill": {"weight": 0.5}}),
    Lever("distill 0.8, 5e-5", {"distill": {"weight": 0.8}}),
    Lever("mix, 5e-5", mixed(5e-5, weight=0.0)),
    Lever("mix, 3e-4", mixed(weight=0.0)),
    *(Lever(f"mix + distill, {rate}", mixed(float(rate))) for rate in ("5e-5", "1e-4", "2e-4", "3e-4", "5e-4")),
    Lever(f"{BOTH}, distill 0.25", mixed(weight=0.25)),
    Lever(f"{BOTH}, share 0.35", mixed(share=0.35)),
    Lever(f"{BOTH}, half the budget", mixed(), budget=0.5),
    Lever(f"{BOTH}, 1.5 times the budget", mixed(), budget=1.5),
    Lever(f"{BOTH}, 2 times the budget", mixed(), budget=2.0),
    Lever("mix + distill, LoRA r 16, 2e-3", mixed(2e-3, lora={"enabled": True, "r": 16, "alpha": 32})),
    Lever(f"{BOTH}, frozen embeddings", mixed(freeze_embeddings=True)),
    Lever(f"{BOTH}, dropout 0.1", mixed(dropout=0.1)),
    Lever(f"{BOTH}, groups of 4", mixed(group_size=4, batch_size=32), general="general, short"),
    Lever(f"{BOTH}, 4 in-batch negatives", mixed(in_batch_negatives=4)),
    Lever(f"{BOTH}, margin_mse", mixed(distill={"weight": 0.5, "loss": "margin_mse"})),
]  # fmt: skip


def main() -> None:
    """Print a Markdown table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", help="collection in BEIR layout with splits train and test")
    parser.add_argument("--away", nargs="+", default=[], help="others with a split test")
    parser.add_argument("--work", type=Path, help="folder that keeps vectors and rows; a second run finds them there")
    parser.add_argument("--only", action="append", help="part of a lever's name; may be repeated")
    parser.add_argument("--pairs", type=int, default=20_000, help="budget of a run")
    parser.add_argument("--seed", type=int, default=13, help="of the runs and of what is drawn for them")
    parser.add_argument("--test-queries", type=int, default=300, help="sample of HOME's; elsewhere all are measured")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--general-documents", type=int, default=8000, help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = [lever for lever in LEVERS if not options.only or any(part in lever.name for part in options.only)]
    if not chosen:
        parser.error(f"--only {options.only}: part of no name; there are {[lever.name for lever in LEVERS]}")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary, alone_in_group(options.device):
        base = (options.work or Path(temporary)).absolute()
        os.environ.setdefault("RANKER_HOME", str(base / "cache"))
        show(chosen, options, base)


@contextmanager
def alone_in_group(device: str) -> Iterator[None]:
    """A process group of this process alone, which is all that the loop needs."""
    name_accelerator(device)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}  # fmt: skip
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


@dataclass(frozen=True)
class Bench:
    """Everything that the levers share.

    Args:
        given: what decides a row besides the lever. groups: by name. lists: home, away, general text.
    """

    options: argparse.Namespace
    base: Path
    given: dict[str, Any]
    groups: dict[str, pa.Table]
    lists: list[Lists]

    def section(self, lever: Lever) -> TrainConfig:
        """Of the lever's run, or of the one it starts from."""
        steps = max(1, round(lever.budget * self.options.pairs / PAIRS_A_STEP))
        kept = {"max_steps": steps, "checkpoint_every": steps, "cpus_per_worker": available_cpus()}
        return TrainConfig.model_validate({**COMMON, **kept, **lever.changes})

    def folder(self, name: str) -> Path:
        """Of the run of this lever."""
        return self.base / "models" / fingerprint(self.given) / re.sub(r"\W+", "-", name)


def prepare(options: argparse.Namespace, base: Path) -> Bench:
    """Encode all collections, choose what is learnt from, and tokenise what is measured."""
    store = Store(base / "vectors", options.device)
    tokenizer = load_tokenizer(TrainConfig.model_validate(COMMON))
    groups: dict[str, pa.Table] = {}
    # No run reads half of these.
    most_train = max(64, options.pairs // 4)
    home = open_encoded(Path(options.home).stem, options.home, TOKENS, store)
    general = open_encoded("general text", "pydocs", GENERAL_TOKENS, store, max_documents=options.general_documents)
    for found, draws in ((home, HOME_DRAWS), (general, GENERAL_DRAWS)):
        asked = found.asked("train", TRAIN_DEPTH, most_train)
        groups |= {name: groups_of(found, asked, draw, options.seed) for name, draw in draws.items()}
    lists = [lists_of(home, options.test_queries, tokenizer, COMMON["max_length"])]
    for source in options.away:
        away = open_encoded(Path(source).stem, source, TOKENS, store)
        lists.append(lists_of(away, None, tokenizer, COMMON["max_length"]))
    lists.append(lists_of(general, GENERAL_TEST_QUERIES, tokenizer, COMMON["max_length"]))
    given = {name: getattr(options, name) for name in ("pairs", "seed", "test_queries", "general_documents", "device")}
    given |= {
        "home": fingerprint_path(Path(options.home)),
        "away": [fingerprint_path(Path(one)) for one in options.away],
    }
    return Bench(options, base, given, groups, lists)


def show(chosen: list[Lever], options: argparse.Namespace, base: Path) -> None:
    """Print the table, and keep each row of it."""
    bench = prepare(options, base)
    file = base / "results.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    known = {line["lever"]: line for line in lines if line["given"] == bench.given}
    home, *away, general = [lists.name for lists in bench.lists]
    told = {name: f"{table.num_rows:,}" for name, table in bench.groups.items()}
    print(f"{options.pairs:,} pairs a run, seed {options.seed}, {options.device}; groups to learn from: {told}\n")
    print("| lever |", " | ".join([f"home: {home}", *away, "away, mean", general, "pairs", "s"]), "|")
    print("|---" * (len(bench.lists) + 4) + "|")
    print_row("the retriever itself", [[lists.ndcg(lists.cosines)] for lists in bench.lists])
    for lever in chosen:
        line = known.get(lever.name)
        if line is None:
            try:
                line = {"given": bench.given, "lever": lever.name, **measured(lever, bench)}
            except TrainingError as error:
                print(f"| {lever.name} | ended: {error} |", flush=True)
                continue
            with file.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
        print_row(lever.name, line["figures"], f"{line['pairs']:,}", f"{line['seconds']:.0f}")


def print_row(name: str, figures: list[list[float]], pairs: str = "", seconds: str = "") -> None:
    """One line of the table; each figure with its second one, where there is one."""
    home, *away, general = figures
    mean = [[sum(column) / len(away) for column in zip(*away, strict=True)]] if away else [[]]
    cells = [" / ".join(f"{one:.3f}" for one in figure) for figure in (home, *away, *mean, general)]
    print("|", " | ".join([name, *cells, pairs, seconds]), "|", flush=True)


def measured(lever: Lever, bench: Bench) -> dict[str, Any]:
    """Train as the lever says and measure everywhere."""
    folder = bench.folder(lever.of or lever.name)
    if not (folder / OUTCOME).is_file():
        train(lever, bench, folder)
    outcome, model = json.loads((folder / OUTCOME).read_text()), folder / WEIGHTS
    if lever.back:
        weights, section = load_file(model / "model.safetensors"), bench.section(lever)
        model = folder / f"back-{lever.back}"
        write_model(weights, section.model_copy(update={"average_start": lever.back}), bench.options.seed, model)
    scorer = load_scorer(model, ScoringConfig(engine="torch", precision="fp32"), bench.options.device)
    figures = [lists.figures(scorer.score_encoded(lists.columns)) for lists in bench.lists]
    scorer.engine.lanes.close()
    # Only what others start from is needed again.
    if lever.back or lever.name not in {each.of for each in LEVERS}:
        shutil.rmtree(model if lever.back else folder)
    return {"figures": figures, "pairs": outcome["pairs"], "seconds": outcome["train_seconds"]}


def train(lever: Lever, bench: Bench, folder: Path) -> None:
    """One run of the loop, whose folder is whole when it holds an outcome."""
    section, seed = bench.section(lever), bench.options.seed
    groups = [bench.groups[name] for name in ((lever.home, lever.general) if section.mix else (lever.home,))]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_group_file(pa.concat_tables(groups), folder / GROUP_FILE)
    job = Job(section, seed, folder, tuple(table.num_rows for table in groups))
    run = Run(job, Place(0, 1, torch.device(bench.options.device), None, lambda metrics, stored: None))
    try:
        run.loop()
        run.finish()
    finally:
        run.engine.destroy()
        del run
        gc.collect()


if __name__ == "__main__":
    main()
