"""What a sweep finds on a collection, what it costs around the training steps, and what it leaves in a cluster.

Three claims, each with its own option; what is not asked for is not run.

``--search`` runs a sweep of an experiment (its stages run before it) within a budget, repeats best and default with
three seeds and measures both on test: the best beats the default by more than seed noise, or it does not.
``--overhead`` trains a tiny model (random weights, two layers) some times alone through the stage `train` and as trials
of a sweep, and prints the seconds of each that were not training steps, so what Train costs and what Tune adds to it.
``--leaks N`` runs N trials of that model and counts actors, placement groups and file handles before and after.

    python benchmarks/tuning.py --search jobs/medquad.yaml --space tune_spaces/optimizer.yaml --minutes 30
    python benchmarks/tuning.py --overhead --repeat 3
    python benchmarks/tuning.py --leaks 50
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from ranker.config import Experiment, RayConfig, load_experiment
from ranker.schemas import GROUPS, QRELS
from ranker.session import connected, one_cluster

STEPS = 12
# What half an hour on two cores holds: 300 groups and as many of the mix, of at most 96 tokens, and a sample of the
# test queries. A measurement on dev takes as long as ten steps.
BUDGET = {
    "mine.max_queries": 300, "train.max_length": 96, "train.batch_size": 16, "train.evaluate_every": 12,
    "train.num_workers": 2, "tune.scheduler": "asha", "tune.num_trials": 12, "evaluate.max_queries": 200,
    "evaluate.depth": 20,
}  # fmt: skip


def search(experiment: Path, space: str, minutes: float, overrides: list[str]) -> None:
    """One sweep with repeats and test; prints what its report says."""
    from ranker.cli.stages import run

    # Half of the time for trials; the other for five more trainings of full length and six measurements on test.
    config = load_experiment(experiment).with_overrides(
        {**BUDGET, "tune.space": space, "tune.time_budget_s": 60 * minutes / 2}
    )
    config = config.with_overrides(_parsed(overrides))
    start = time.monotonic()
    with one_cluster():
        done = run("tune", config)
    rows = pq.read_table(done.folder / "trials.parquet").to_pylist()
    print(
        f"\n{len(rows)} trials in {time.monotonic() - start:.0f} s with all stages before them; "
        f"{done.folder}/report.html"
    )
    print(
        f"stopped {done.outcome['num_stopped']}, failed {done.outcome['num_failed']}, best {done.outcome['overrides']}"
    )
    for told in done.outcome["repeats"]:
        print(f"  {told['who']:8} seed {told['seed']}: dev {_shown(told['dev'])}, test {_shown(told['test'])}")
    for where, gain in done.outcome["gain"].items():
        verdict = "more than seed noise" if gain["real"] else "within seed noise"
        print(f"{where}: {gain['gain']:+.4f} (95% from {_shown(gain['low'])} to {_shown(gain['high'])}): {verdict}")


def overhead(repeat: int) -> None:
    """Seconds around the training steps, alone and as a trial, on one warm cluster."""
    from ranker.training.trainer import fit
    from ranker.tuning.sweep import sweep

    with tempfile.TemporaryDirectory() as folder, connected(RayConfig(num_cpus=2)):
        base = tiny_experiment(Path(folder))
        fit(
            base.with_overrides({"train.output_dir": f"{folder}/warm", "seed": 99})
        )  # imports and the first compilation
        alone = []
        for number in range(repeat):
            start = time.monotonic()
            done = fit(base.with_overrides({"train.output_dir": f"{folder}/alone-{number}", "seed": number}))
            alone.append((time.monotonic() - start, done.outcome["train_seconds"]))
        start = time.monotonic()
        done = sweep(base.with_overrides({"tune.num_trials": repeat}))
        whole = time.monotonic() - start
        rows = pq.read_table(done.folder / "trials.parquet").to_pylist()
    trials = [(row["seconds"], row["train_seconds"]) for row in rows]
    print(f"\n{'':24} {'seconds':>8} {'of them in steps':>17} {'around':>8}")
    for name, pairs in (("train alone", alone), ("train in a trial", trials)):
        print(
            f"{name:24} {_median(pairs, 0):8.1f} {_median(pairs, 1):17.1f} {_median(pairs, 0) - _median(pairs, 1):8.1f}"
        )
    per_trial = whole / len(rows)
    print(f"{'the sweep, a trial':24} {per_trial:8.1f}; Tune around the trial {per_trial - _median(trials, 0):.1f}")


def leaks(trials: int) -> None:
    """Actors, placement groups and file handles before and after a sweep."""
    import ray
    from ray.util import placement_group_table
    from ray.util.state import list_actors

    from ranker.tuning.sweep import sweep

    def alive() -> dict[str, str]:
        address = ray.get_runtime_context().gcs_address
        found = list_actors(address=address, filters=[("state", "=", "ALIVE")], limit=10_000)
        return {actor.actor_id: actor.class_name for actor in found}

    def count() -> dict[str, int]:
        groups = [told for told in placement_group_table().values() if told["state"] != "REMOVED"]
        return {"actors": len(alive()), "placement groups": len(groups), "file handles": psutil.Process().num_fds()}

    with tempfile.TemporaryDirectory() as folder, connected(RayConfig(num_cpus=2)):
        base = tiny_experiment(Path(folder)).with_overrides({"tune.scheduler": "asha", "tune.num_trials": trials})
        before, known, start = count(), alive(), time.monotonic()
        done = sweep(base)
        seconds = time.monotonic() - start
        deadline = time.monotonic() + 60  # what was told to end needs a moment
        while (left := {actor: name for actor, name in alive().items() if actor not in known}) and (
            time.monotonic() < deadline
        ):
            time.sleep(1)
        after = count()
    told = done.outcome
    print(
        f"\n{told['num_trials']} trials ({told['num_stopped']} stopped, {told['num_failed']} failed) in {seconds:.0f} s"
    )
    for name in before:
        print(f"{name:18} before {before[name]:4}, after {after[name]:4}")
    if left:
        print("actors that are left:", *sorted(left.values()))


def tiny_experiment(folder: Path) -> Experiment:
    """Random weights of two layers, 24 groups of three short texts, four dev queries."""
    from transformers import BertConfig, BertModel

    from ranker.pretrained import bundled_folder

    model = folder / "tiny"
    tokenizer = _copy_tokenizer(Path(bundled_folder()), model)
    BertModel(BertConfig(vocab_size=tokenizer, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                         intermediate_size=64, max_position_embeddings=64)).save_pretrained(model)  # fmt: skip
    _write_groups(folder / "mined")
    (folder / "space.yaml").write_text("train.learning_rate: {sampler: loguniform, lower: 1.0e-4, upper: 1.0e-2}\n")
    return Experiment().with_overrides({
        "output_dir": str(folder / "run"), "train.model": str(model), "train.groups": str(folder / "mined"),
        "train.num_workers": 1, "train.batch_size": 4, "train.group_size": 3, "train.max_length": 32,
        "train.precision": "fp32", "train.epochs": 100, "train.max_steps": STEPS, "train.evaluate_every": 3,
        "train.checkpoint_every": STEPS, "tune.space": str(folder / "space.yaml"), "tune.num_seeds": 0,
        "tune.search": "random",
    })  # fmt: skip


def _copy_tokenizer(source: Path, target: Path) -> int:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(source))
    tokenizer.save_pretrained(str(target))
    return len(tokenizer)


def _write_groups(folder: Path) -> None:
    words = ["cat", "dog", "bird", "fish", "frog", "horse"]
    rows = [
        {"query_id": f"q{n}", "query": f"where is a {words[n % 6]}", "labels": [1.0, 0.0, 0.0],
         "documents": [f"the {words[(n + shift) % 6]} is here" for shift in range(3)]} for n in range(24)
    ]  # fmt: skip
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=GROUPS), folder / "groups.parquet")
    dev = [{**row, "doc_ids": [f"{row['query_id']}-{place}" for place in range(3)]} for row in rows[:4]]
    schema = GROUPS.append(pa.field("doc_ids", pa.list_(pa.string())))
    pq.write_table(pa.Table.from_pylist(dev, schema=schema), folder / "dev_groups.parquet")
    judged = [{"query_id": row["query_id"], "doc_id": f"{row['query_id']}-0", "relevance": 1} for row in rows[:4]]
    pq.write_table(pa.Table.from_pylist(judged, schema=QRELS), folder / "dev_qrels.parquet")


def _parsed(assignments: list[str]) -> dict[str, Any]:
    from ranker.config import parse_overrides

    return parse_overrides(assignments)


def _median(pairs: list[tuple[float, float]], place: int) -> float:
    return statistics.median(pair[place] for pair in pairs)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", type=Path, metavar="EXPERIMENT", help="sweep this experiment")
    parser.add_argument("--space", default="tune_spaces/optimizer.yaml")
    parser.add_argument("--minutes", type=float, default=30.0, help="of the sweep, repeats included")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--leaks", type=int, metavar="TRIALS")
    given = parser.parse_args()
    if not (given.search or given.overhead or given.leaks):
        sys.exit(parser.format_usage() + "name --search, --overhead or --leaks")
    if given.overhead:
        overhead(given.repeat)
    if given.leaks:
        leaks(given.leaks)
    if given.search:
        search(given.search, given.space, given.minutes, given.set)


if __name__ == "__main__":
    main()
