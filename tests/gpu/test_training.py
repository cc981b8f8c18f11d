"""Training on a GPU: every precision and stage of ZeRO learns the same, overflows are survived, and a run resumes.

``pytest -m gpu -n 0`` where there is a CUDA device; none of it needs Ray.
"""

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import torch.distributed

from ranker.config import ScoringConfig, TrainConfig
from ranker.scoring import load_scorer
from ranker.training.batches import write_group_file
from ranker.training.engine import name_accelerator
from ranker.training.job import GROUP_FILE, OUTCOME, WEIGHTS, Job
from ranker.training.loop import Place, Run
from ranker.training.progress import LOG, TrainingError
from ranker.training.zero import PrecisionError

pytestmark = pytest.mark.gpu
ANIMALS = ("cat", "dog", "bird", "fish", "frog", "horse")
STEPS = 88


@pytest.fixture(scope="module", autouse=True)
def nccl() -> Iterator[None]:
    """A process group of this process alone."""
    name_accelerator("cuda")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1"}.items():
            patch.setenv(name, str(value))
        patch.setenv("MASTER_PORT", str(port))
        torch.distributed.init_process_group("nccl")
        yield
        torch.distributed.destroy_process_group()


def groups(number: int = 48) -> pa.Table:
    """Of one text about the animal of the query and three about others."""
    rows = []
    for row in range(number):
        animal, *others = [ANIMALS[(row + shift) % 6] for shift in range(4)]
        documents = [f"the {name} is here{' and there' * (row % 3)}" for name in (animal, *others)]
        rows.append({"query_id": f"q{row}", "query": f"where is a {animal}", "documents": documents,
                     "labels": [1.0, 0.0, 0.0, 0.0]})  # fmt: skip
    return pa.Table.from_pylist(rows)


class Trained:
    """A finished run."""

    def __init__(self, run: Run, work: Path) -> None:
        self.run, self.work = run, work
        lines = [json.loads(line) for line in (work / LOG).read_text().splitlines()]
        self.losses = {line["step"]: line["loss"] for line in lines if "loss" in line}

    def scores(self, device: str, precision: str = "fp32") -> list[list[float]]:
        """Of the first six groups."""
        scorer = load_scorer(self.work / WEIGHTS, ScoringConfig(engine="torch", precision=precision), device)
        pairs = [(group["query"], text) for group in groups(6).to_pylist() for text in group["documents"]]
        return scorer.score(pairs).reshape(6, 4).tolist()


@pytest.fixture
def train(tiny_backbone: str, tmp_path: Path) -> Iterator[Callable[..., Trained]]:
    """Run the loop; checkpoints go to ``run-N/step-M``."""
    made: list[Run] = []

    def start(newest: Path | None = None, **changes: object) -> Trained:
        defaults = {
            "model": tiny_backbone, "num_workers": 1, "gpus_per_worker": 1, "batch_size": 8, "group_size": 4,
            "max_length": 32, "max_steps": STEPS, "epochs": 100, "learning_rate": 3e-3, "dropout": 0.0, "loss": "lce",
            "checkpoint_every": STEPS // 2, "log_every": 2,
        }  # fmt: skip
        work = tmp_path / f"run-{len(made)}"
        work.mkdir()
        write_group_file(groups(), work / GROUP_FILE)
        job = Job(TrainConfig.model_validate(defaults | changes), 13, work, (48,))

        def keep(metrics: dict[str, float], folder: Path) -> None:
            shutil.copytree(folder, work / f"step-{metrics['step']}")

        run = Run(job, Place(0, 1, torch.device("cuda"), newest, keep))
        made.append(run)
        run.loop()
        run.finish()
        return Trained(run, work)

    yield start
    for run in made:
        run.engine.destroy()


WAYS = [
    *({"precision": precision, "deepspeed": {"stage": stage}}
      for precision in ("fp16", "bf16", "fp32") for stage in (0, 1, 2, 3)),
    {"precision": "fp16", "deepspeed": {"stage": 2, "offload": True}},
    {"precision": "bf16", "deepspeed": {"stage": 3, "offload": True}},
    {"precision": "fp16", "activation_checkpointing": True},
    {"precision": "fp16", "gradient_accumulation_steps": 2, "tokens_per_pass": 64},
    {"precision": "bf16", "lora": {"enabled": True, "r": 8, "alpha": 16}},
    {"precision": "auto"},
]  # fmt: skip


@pytest.mark.parametrize("changes", WAYS, ids=str)
def test_every_way_learns_the_animals_and_leaves_a_folder_for_a_cpu(train: Callable, changes: dict) -> None:
    done = train(**changes)
    assert min(done.losses) == 2 and max(done.losses) == STEPS
    assert done.losses[2] == pytest.approx(1.386, abs=0.1)  # four documents that are all alike: ln 4
    assert sum(list(done.losses.values())[-5:]) / 5 < 1.0  # fp16 leaves steps out to find its loss scale
    assert json.loads((done.work / OUTCOME).read_text())["pairs"] == STEPS * 8 * 4
    here, there = done.scores("cpu"), done.scores("cuda")
    assert sum(scores[0] == max(scores) for scores in here) >= 4  # of six; one or two by chance
    assert torch.allclose(torch.tensor(here), torch.tensor(there), atol=2e-3)
    for precision in ("bf16", "fp16"):
        assert torch.allclose(torch.tensor(here), torch.tensor(done.scores("cuda", precision)), atol=0.15)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_run_in_fp16_goes_on_from_its_checkpoint(train: Callable, stage: int) -> None:
    whole = train(precision="fp16", deepspeed={"stage": stage})
    resumed = train(newest=whole.work / f"step-{STEPS // 2}", precision="fp16", deepspeed={"stage": stage})
    assert min(resumed.losses) == STEPS // 2 + 2
    for step, loss in resumed.losses.items():
        assert loss == pytest.approx(whole.losses[step], abs=0.02)
    assert torch.allclose(torch.tensor(resumed.scores("cpu")), torch.tensor(whole.scores("cpu")), atol=0.3)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_loss_scale_that_is_too_large_falls_until_nothing_overflows(train: Callable, stage: int) -> None:
    done = train(precision="fp16", deepspeed={"stage": stage, "initial_scale_power": 24})
    assert done.run.engine.optimizer.cur_scale < 2**24
    assert done.losses[STEPS] < 0.9


def test_a_rate_that_is_far_too_large_ends_with_advice(train: Callable) -> None:
    with pytest.raises(TrainingError, match=r"train\.learning_rate"):
        train(precision="fp16", learning_rate=1e4, head_learning_rate=1e4, warmup_ratio=0.0, max_grad_norm=1e9)


def test_what_the_device_cannot_do_is_refused(train: Callable) -> None:
    if torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this device computes in bf16")
    with pytest.raises(PrecisionError, match="bf16"):
        train(precision="bf16")
