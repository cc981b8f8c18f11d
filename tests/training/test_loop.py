"""The DeepSpeed loop with one worker in this process: no Ray."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ranker.config import TrainConfig
from ranker.schemas import GROUPS, read_table
from ranker.training.batches import Group, collate, write_group_file
from ranker.training.job import GROUP_FILE, OUTCOME, WEIGHTS, Job
from ranker.training.loop import Place, Run
from ranker.training.order import Order, Part
from ranker.training.progress import LOG, TrainingError
from ranker.training.scores import Passes, padding_values, passes_of, score_batch

pytestmark = pytest.mark.usefixtures("one_worker_group")
Section = Callable[..., TrainConfig]
ONE_PASS = Passes(torch.device("cpu"), 1 << 30)


def train(config: TrainConfig, animals: Path, work: Path, newest: Path | None = None, stop_after: int = 99) -> Path:
    """Run the loop in ``work``; checkpoints go to ``work/step-N``; ``stop_after`` reports, the power fails."""
    work.mkdir(exist_ok=True)
    write_group_file(read_table(animals / "groups.parquet", GROUPS), work / GROUP_FILE)
    reported = []

    def report(metrics: dict[str, float], folder: Path) -> None:
        shutil.copytree(folder, work / f"step-{metrics['step']}")
        reported.append(metrics)
        if len(reported) == stop_after:
            raise InterruptedError

    run = Run(Job(config, 13, work, (48,), {"": animals}), Place(0, 1, torch.device("cpu"), newest, report))
    try:
        run.loop()
        run.finish()
    except InterruptedError:
        pass
    return work


def weights(work: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(work / WEIGHTS / "model.safetensors")


def largest_difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_a_run_leaves_a_model_a_log_and_its_numbers(train_config: Section, animals: Path, tmp_path: Path) -> None:
    work = train(train_config(max_steps=40, learning_rate=3e-3), animals, tmp_path / "run")
    outcome = json.loads((work / OUTCOME).read_text())
    assert (outcome["steps"], outcome["pairs"]) == (40, 40 * 16)
    assert outcome["dev"]["ndcg@10"] > 0.9  # the retriever put the right text last: 1 / log2(5) = 0.43
    lines = [json.loads(line) for line in (work / LOG).read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(2, 41, 2))
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    assert next(line["retriever"]["ndcg@10"] for line in lines if "dev" in line) == pytest.approx(1 / np.log2(5))


# bce where weights are compared: the gradient of a bias under lce is rounding alone, which Adam makes a step of.
def test_pieces_of_a_batch_change_no_result(train_config: Section, animals: Path, tmp_path: Path) -> None:
    whole = train(train_config(batch_size=8, loss="bce"), animals, tmp_path / "8x1")
    pieces = train(train_config(batch_size=8, loss="bce", gradient_accumulation_steps=2), animals, tmp_path / "4x2")
    assert largest_difference(whole, pieces) < 1e-5


@pytest.mark.parametrize("stage", [2, 3])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    train_config: Section, animals: Path, tmp_path: Path, stage: int
) -> None:
    config = train_config(dropout=0.1, deepspeed={"stage": stage})
    through = train(config, animals, tmp_path / "through")
    stopped = train(config, animals, tmp_path / "stopped", stop_after=1)
    assert not (stopped / WEIGHTS).exists()
    resumed = train(config, animals, tmp_path / "resumed", newest=stopped / "step-4")
    assert largest_difference(through, resumed) == 0.0
    assert json.loads((resumed / OUTCOME).read_text())["pairs"] == 8 * 16


def test_every_zero_stage_ends_with_the_same_weights(train_config: Section, animals: Path, tmp_path: Path) -> None:
    plain = train(train_config(loss="bce", deepspeed={"stage": 0}), animals, tmp_path / "0")
    for stage in (1, 2, 3):
        staged = train(train_config(loss="bce", deepspeed={"stage": stage}), animals, tmp_path / str(stage))
        assert largest_difference(plain, staged) < 1e-5


def test_the_loop_is_torch_adamw(train_config: Section, animals: Path, tmp_path: Path) -> None:
    from ranker.training import batches
    from ranker.training.losses import bce
    from ranker.training.model import head_modules, load_model, parameter_groups
    from ranker.training.schedule import rate_factor

    config = train_config(loss="bce", head_learning_rate=5e-3)
    work = train(config, animals, tmp_path / "run")
    model, tokenizer = load_model(config, 13)
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, config, head_modules(model)))
    peaks = [group["lr"] for group in optimizer.param_groups]
    groups = batches.GroupFile(work / GROUP_FILE)
    order = Order(groups.sizes, [Part(0, 48, 4)], 13)
    for step in range(8):
        batch = batches.collate([groups[row] for row in order.rows(step)], tokenizer, 32)
        scores, _ = score_batch(model, batch, padding_values(tokenizer), ONE_PASS)
        bce(scores, torch.from_numpy(batch.labels), torch.from_numpy(batch.mask)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * rate_factor(step, 8, 0.1, "linear")
        optimizer.step()
        optimizer.zero_grad()
    expected, found = model.state_dict(), weights(work)
    assert max(float((expected[name] - found[name]).abs().max()) for name in found) < 1e-5


def test_bf16_learns_at_a_rate_that_bf16_weights_could_not_hold(
    train_config: Section, animals: Path, tmp_path: Path
) -> None:
    # A bf16 weight of size 0.02 moves in steps of 1e-4 at the finest: without fp32 weights 1e-6 would be lost.
    config = train_config(precision="bf16", learning_rate=1e-6, schedule="constant", warmup_ratio=0.0, weight_decay=0.0)
    from ranker.training.model import load_model

    moved = weights(train(config, animals, tmp_path / "run"))
    start = load_model(config, 13)[0].state_dict()
    name = "bert.encoder.layer.0.attention.self.query.weight"
    change = (moved[name] - start[name]).abs().mean()
    assert 1e-6 < float(change) < 8.1e-6  # eight steps of at most the rate


def test_a_saved_folder_scores_as_the_peers_read_it(train_config: Section, animals: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    lora = {"enabled": True, "r": 4, "alpha": 8}
    folder = train(train_config(lora=lora, deepspeed={"stage": 3}), animals, tmp_path / "run") / WEIGHTS
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    batch = collate([Group("where is a cat", ("the cat is here " * 9, "a dog"), (1, 0))], tokenizer, 32)
    with torch.no_grad():
        scores, _ = score_batch(model.eval(), batch, padding_values(tokenizer), ONE_PASS)
    peer = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
    expected = peer.predict([("where is a cat", "the cat is here " * 9), ("where is a cat", "a dog")])
    assert scores[0].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert not [name for name in weights(folder.parent) if "lora" in name]


def test_adapters_resume_from_a_checkpoint_without_the_frozen_weights(
    train_config: Section, animals: Path, tmp_path: Path
) -> None:
    config = train_config(lora={"enabled": True, "r": 4, "alpha": 8})
    through = train(config, animals, tmp_path / "through")
    resumed = train(config, animals, tmp_path / "resumed", newest=through / "step-4")
    assert largest_difference(through, resumed) == 0.0
    saved = torch.load(through / "step-4" / "state" / "mp_rank_00_model_states.pt", weights_only=False)
    assert not [name for name in saved["module"] if "word_embeddings" in name]
    from ranker.training.model import load_model

    start = load_model(train_config(), 13)[0].state_dict()["classifier.weight"]
    assert float((weights(through)["classifier.weight"] - start).abs().max()) > 1e-4  # the head learns


def test_frozen_embeddings_stay_as_they_were(train_config: Section, animals: Path, tmp_path: Path) -> None:
    from ranker.training.model import load_model

    config = train_config(freeze_embeddings=True)
    found = weights(train(config, animals, tmp_path / "run"))
    start = load_model(config, 13)[0].state_dict()
    moved = {name for name in found if not torch.equal(found[name], start[name])}
    assert moved and not [name for name in moved if "embeddings" in name]


def test_a_rate_that_breaks_the_model_stops_with_advice(train_config: Section, animals: Path, tmp_path: Path) -> None:
    config = train_config(learning_rate=1e30, max_grad_norm=1e30, max_steps=20, log_every=1)
    with pytest.raises(TrainingError, match=r"train\.learning_rate"):
        train(config, animals, tmp_path / "run")


def test_a_cpu_in_bf16_gets_few_shapes_and_the_scores_stay(
    train_config: Section, tiny_reranker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    monkeypatch.setattr("ranker.torch_on_cpu.WORTH_PADDING", 0)
    config, cpu = train_config(max_length=40), torch.device("cpu")
    exact, padded = (passes_of(config, arithmetic, cpu) for arithmetic in ("fp32", "bf16"))
    assert (exact.tokens, exact.multiple, padded.tokens, padded.multiple) == (512, 1, 2048, 16)
    assert passes_of(config, "bf16", torch.device("cuda")).tokens == 32768
    tokenizer = AutoTokenizer.from_pretrained(tiny_reranker)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reranker).eval()
    texts = tuple("dog " * times for times in (1, 2, 14, 30, 90))
    batch = collate([Group("cat", texts, (1, 0, 0, 0, 0))], tokenizer, 40)
    assert padded.padded(batch.lengths).tolist() == [16, 16, 32, 40, 40]  # never above the limit
    pad = padding_values(tokenizer)
    with torch.no_grad():
        (first, computed), (second, more) = (score_batch(model, batch, pad, how) for how in (exact, padded))
    assert torch.allclose(first, second, atol=1e-6) and computed <= more
