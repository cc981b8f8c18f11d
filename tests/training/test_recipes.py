"""What a recipe can ask of the loop: other losses, mixes, the best weights, less memory; one worker, no Ray."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from ranker.config import TrainConfig
from ranker.schemas import EXAMPLES, GROUPS
from ranker.training import batches, checkpoint, measure, objective
from ranker.training.batches import write_group_file
from ranker.training.job import GROUP_FILE, ORDER, OUTCOME, WEIGHTS, Job
from ranker.training.loop import Place, Run
from ranker.training.progress import LOG

pytestmark = pytest.mark.usefixtures("one_worker_group")
Section = Callable[..., TrainConfig]


@dataclass
class Trained:
    """A work folder after the loop, and what it reported."""

    work: Path
    reported: list[dict[str, float]] = field(default_factory=list)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return load_file(self.work / WEIGHTS / "model.safetensors")

    @property
    def outcome(self) -> dict:
        return json.loads((self.work / OUTCOME).read_text())

    def lines(self, name: str = LOG) -> list[dict]:
        return [json.loads(line) for line in (self.work / name).read_text().splitlines()]


@pytest.fixture
def train(animals: Path, tmp_path: Path) -> Callable[..., Trained]:
    """Run the loop with a section on the animals; checkpoints go to ``step-N``."""
    made = []

    def run(
        config: TrainConfig, counts: tuple[int, ...] = (48,), dev: bool = True, newest: Path | None = None,
        groups: pa.Table | None = None,
    ) -> Trained:  # fmt: skip
        found = Trained(tmp_path / f"run-{len(made)}")
        made.append(found)
        found.work.mkdir(exist_ok=True)
        table = groups if groups is not None else pq.read_table(animals / "groups.parquet")
        write_group_file(table, found.work / GROUP_FILE)

        def report(metrics: dict[str, float], folder: Path) -> None:
            shutil.copytree(folder, found.work / f"step-{metrics['step']}")
            found.reported.append(metrics)

        job = Job(config, 13, found.work, counts, {"": animals} if dev else {})
        run = Run(job, Place(0, 1, torch.device("cpu"), newest, report))
        run.loop()
        run.finish()
        return found

    return run


def difference(one: Trained, other: Trained) -> float:
    first, second = one.weights, other.weights
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def with_scores(groups: pa.Table, scores: Sequence[Sequence[float] | None]) -> pa.Table:
    kind = EXAMPLES.field("scores")
    return groups.select(GROUPS.names).append_column(kind, pa.array(scores, kind.type))


def animal_table(animals: Path) -> pa.Table:
    return pq.read_table(animals / "groups.parquet")


@pytest.mark.parametrize("changes", [
    {"tokens_per_pass": 20},  # a pair or two at a time
    {"activation_checkpointing": True},
    {"deepspeed": {"stage": 3}, "tokens_per_pass": 20},
    {"deepspeed": {"stage": 2, "offload": True}},
    {"deepspeed": {"stage": 3, "offload": True}},
    {"gradient_accumulation_steps": 3},  # four groups in three pieces: 2, 1 and 1
], ids=str)  # fmt: skip
def test_what_only_saves_memory_changes_no_result(train: Callable, train_config: Section, changes: dict) -> None:
    assert difference(train(train_config(loss="bce")), train(train_config(loss="bce", **changes))) < 1e-5


def test_the_cached_loss_is_the_plain_one(train: Callable, train_config: Section) -> None:
    # The same passes for both: other sums would round a gradient of nearly nothing to another step of Adam.
    plain, cached = (
        train(train_config(loss=name, tokens_per_pass=20, dropout=0.1))
        for name in ("multiple_negatives", "cached_multiple_negatives")
    )
    assert difference(plain, cached) < 1e-6
    assert cached.outcome["pairs"] == plain.outcome["pairs"] == 8 * 4 * 8  # four of the others' beside four


def test_the_best_weights_are_the_model(
    train: Callable, train_config: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.5, 0.9, 0.7, 0.6])
    monkeypatch.setattr(measure, "measure", lambda *_: {"ndcg@10": next(values)})
    best = train(train_config(evaluate_every=2, keep_best=2, dropout=0.0))
    assert best.outcome["best"] == [[0.9, 4], [0.7, 6]]
    assert [line["best"] for line in best.lines() if "dev" in line] == [True, True, False, False]
    monkeypatch.undo()
    stopped = train(train_config(max_steps=8, checkpoint_every=4), dev=False)
    resumed = {name: value for name, value in best.weights.items()}
    # The weights after step 4 of the same run, as its checkpoint has them.
    state = torch.load(best.work / "step-4" / "state" / "mp_rank_00_model_states.pt", weights_only=False)["module"]
    assert max(float((state[name].float() - resumed[name]).abs().max()) for name in state) == 0.0
    assert difference(best, stopped) > 1e-4
    assert (best.work / WEIGHTS / "step-6" / "model.safetensors").is_file()
    assert {file.name for file in best.work.glob("best-*")} == {"best-4.safetensors", "best-6.safetensors"}


def test_patience_ends_a_run_that_gets_no_better(
    train: Callable, train_config: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.5, 0.9, 0.9, 0.8])  # an equal one is no better one
    monkeypatch.setattr(measure, "measure", lambda *_: {"ndcg@10": next(values)})
    found = train(train_config(evaluate_every=1, patience=2, max_steps=20))
    assert found.outcome["steps"] == 4 and found.outcome["best"] == [[0.9, 2]]
    assert "stopping after step 4" in found.lines()[-1]["message"]
    monkeypatch.setattr(measure, "measure", lambda *_: pytest.fail("nothing is left to measure"))
    found.work.with_name("run-1").mkdir()
    shutil.copy(found.work / "best-2.safetensors", found.work.with_name("run-1"))
    again = train(train_config(evaluate_every=1, patience=2, max_steps=20), newest=found.work / "step-4")
    assert again.outcome["steps"] == 4


def test_every_batch_has_its_share_of_a_mix_and_its_dev_set_counts(
    train: Callable, train_config: Section, animals: Path
) -> None:
    table = animal_table(animals)
    other = table.slice(0, 10).set_column(0, GROUPS.field(0), pa.array([f"mixed-{n}" for n in range(10)]))
    config = train_config(mix=[{"groups": "elsewhere", "share": 0.25}], record_order=True)
    found = train(config, counts=(48, 10), groups=pa.concat_tables([table, other]))
    steps = found.lines(ORDER)
    assert [sum(name.startswith("mixed") for name in step["query_ids"]) for step in steps] == [1] * 8
    assert measure.selected({"ndcg@10": 0.5, "map": 0.9, "mix1/ndcg@10": 0.7}, "ndcg@10") == pytest.approx(0.6)


def test_distillation_stands_beside_the_labels(train_config: Section) -> None:
    config = train_config(loss="bce", distill={"weight": 0.25, "loss": "mse", "scale": 2.0})
    labels, mask = np.array([[1, 0, 0]], np.float32), np.ones((1, 3), bool)
    given = np.array([[1.5, 0.5, np.nan]], np.float32)  # the third was never scored
    batch = batches.Batch({}, np.zeros(3), labels, mask, given)
    scores = torch.tensor([[2.0, 0.0, 5.0]])
    plain = objective.batch_loss(scores, batch, train_config(loss="bce"))
    taught = ((2.0 - 3.0) ** 2 + (0.0 - 1.0) ** 2) / 2
    assert objective.batch_loss(scores, batch, config) == pytest.approx(0.75 * plain.item() + 0.25 * taught)
    alone = objective.batch_loss(scores, batch, train_config(loss="mse", target="scores"))
    assert alone == pytest.approx(((2.0 - 1.5) ** 2 + (0.0 - 0.5) ** 2) / 2)


def test_a_model_learns_the_scores_that_groups_carry(train: Callable, train_config: Section, animals: Path) -> None:
    table = animal_table(animals)
    wrong = [[-3.0, 3.0, -3.0, -3.0] for _ in range(table.num_rows)]  # not the labels
    config = train_config(loss="mse", target="scores", max_steps=40, learning_rate=3e-3)
    found = train(config, groups=with_scores(table, wrong))
    steps = [line["loss"] for line in found.lines() if "loss" in line]
    assert steps[-1] < 0.9 * steps[0]


def test_the_final_model_lies_between_start_and_end(train: Callable, train_config: Section) -> None:
    from ranker.training.model import load_model

    end = train(train_config()).weights
    half = train(train_config(average_start=0.5)).weights
    start = load_model(train_config(), 13)[0].state_dict()
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.allclose(half[name], (start[name] + end[name]) / 2, atol=1e-6)
    assert torch.equal(half["classifier.weight"], end["classifier.weight"])


@pytest.mark.parametrize("changes", [
    {"deepspeed": {"stage": 1}}, {"deepspeed": {"stage": 2}}, {"deepspeed": {"stage": 3}},
    {"deepspeed": {"stage": 2}, "precision": "bf16"}, {"deepspeed": {"stage": 3}, "precision": "bf16"},
    {"deepspeed": {"stage": 2}, "lora": {"enabled": True}}, {"deepspeed": {"stage": 3}, "lora": {"enabled": True}},
], ids=str)  # fmt: skip
def test_a_checkpoint_of_other_workers_loses_nothing(
    train: Callable, train_config: Section, monkeypatch: pytest.MonkeyPatch, changes: dict
) -> None:
    config = train_config(loss="bce", **changes)
    through = train(config)
    monkeypatch.setattr(checkpoint, "fits", lambda folder: False)
    resumed = train(config, newest=through.work / "step-4")
    assert resumed.lines()[0]["message"].startswith("resuming after step 4")
    assert difference(through, resumed) < 1e-6
