"""An export scores as torch does and runs without it; one that does not is refused and leaves nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.config import Experiment, ScoringConfig
from ranker.manifest import StageError, run_stage
from ranker.optimization import ModelOptimizer
from ranker.optimization.export import export
from ranker.optimization.optimizer import choose_precision
from ranker.optimization.parity import ParityError
from ranker.schemas import GROUPS
from ranker.scoring import load_scorer
from ranker.scoring.samples import builtin_pairs, sample_file, sample_pairs

PAIRS = [("how long does a cat sleep", "cats sleep for most of the day"), ("dog", ""), ("dog", "a dog " * 90)]


def experiment(model: str, folder: Path, **settings) -> Experiment:
    plain = {"export.model": model, "export.num_samples": 16, **{f"export.{k}": v for k, v in settings.items()}}
    return Experiment(output_dir=str(folder)).with_overrides(plain)


@pytest.fixture(autouse=True)
def without_openvino(monkeypatch):
    """Where it is installed, it would be measured too, and may be faster."""
    monkeypatch.setattr("ranker.scoring.ways.find_spec", lambda package: None)


@pytest.fixture(scope="module")
def exported(tiny_reranker, tmp_path_factory) -> Path:
    config = experiment(tiny_reranker, tmp_path_factory.mktemp("export"))
    done = export(config)
    assert not done.skipped and export(config).skipped
    assert done.outcome["largest_difference"] < 1e-5 and done.outcome["num_pairs"] == 16
    return done.folder


@pytest.fixture
def traced(exported, monkeypatch):
    """Tracing costs seconds and the model is the same: take the graph that is there."""
    monkeypatch.setattr(
        "ranker.scoring.graph.write_graph",
        lambda model, example, path, output="logits": shutil.copyfile(exported / "model.onnx", path),
    )


def test_the_folder_scores_as_torch_does_for_any_number_and_length_of_pairs(exported, tiny_reranker):
    torch_scorer = load_scorer(tiny_reranker, ScoringConfig(precision="fp32"), device="cpu")
    scorer = load_scorer(exported)
    assert (scorer.engine.name, scorer.engine.precision, scorer.max_length) == ("onnx", "fp32", 64)
    np.testing.assert_allclose(scorer.score(PAIRS), torch_scorer.score(PAIRS), atol=1e-5)
    np.testing.assert_allclose(scorer.score(PAIRS[:1]), torch_scorer.score(PAIRS[:1]), atol=1e-5)


def test_the_export_of_an_adapter_opens_again(tiny_backbone, traced, monkeypatch, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = AutoModelForSequenceClassification.from_pretrained(tiny_backbone, num_labels=1)
    options = LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"], task_type="SEQ_CLS")
    get_peft_model(base, options).save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(tiny_backbone).save_pretrained(tmp_path / "adapter")
    monkeypatch.setattr("ranker.optimization.export.breach", lambda *_: None)  # the traced graph is another model's
    folder = export(experiment(str(tmp_path / "adapter"), tmp_path, num_samples=2)).folder
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert len(load_scorer(folder).score(PAIRS)) == 3


def test_the_folder_says_all_that_a_stranger_needs(exported):
    names = {file.name for file in exported.iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json", "parity.json", "example.py", "manifest.json"} <= names
    assert not list(exported.glob("fp32*"))
    parity = json.loads((exported / "parity.json").read_text())
    assert parity["recipe"] == "fp32" and parity["rank_correlation"] > 0.999


def test_the_example_runs_without_torch_and_agrees(exported):
    # A torch that cannot be imported proves that the example does not need it.
    program = (
        f"import sys; sys.modules['torch'] = sys.modules['transformers'] = None; sys.argv = ['example.py', "
        f"'dog', 'a cat', 'a dog barks', '']; import runpy; runpy.run_path({str(exported / 'example.py')!r})"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    lines = [line.split("\t") for line in shown.stdout.splitlines()]
    documents = ["a cat", "a dog barks", ""]
    expected = [(documents[position], score) for position, score in load_scorer(exported).rank("dog", documents)]
    assert [text for _, text in lines] == [text for text, _ in expected]
    np.testing.assert_allclose([float(score) for score, _ in lines], [score for _, score in expected], atol=1e-4)


def test_cross_encoder_of_the_peer_reads_the_same_tokenizer(exported, tiny_reranker):
    from transformers import AutoTokenizer

    ours, theirs = AutoTokenizer.from_pretrained(exported), AutoTokenizer.from_pretrained(tiny_reranker)
    assert ours("a cat", "a dog")["input_ids"] == theirs("a cat", "a dog")["input_ids"]
    assert ours.model_max_length == 64


def test_the_sketched_call_makes_a_file_and_a_folder_that_both_load(traced, tiny_reranker, tmp_path):
    done = ModelOptimizer(model_path=tiny_reranker).export_to_onnx(
        output_path=tmp_path / "reranker.onnx",
        quantize=True,
        precision="int8",
        num_samples=64,
        min_rank_correlation=0.95,
    )
    assert done.folder == tmp_path / "reranker-onnx"
    assert done.outcome["precision"] == "int8" and done.outcome["rank_correlation"] >= 0.95
    session = onnxruntime.InferenceSession(tmp_path / "reranker.onnx")
    assert {node.name for node in session.get_inputs()} == {"input_ids", "attention_mask", "token_type_ids"}
    by_file, by_folder = load_scorer(tmp_path / "reranker.onnx"), load_scorer(done.folder)
    assert by_file.engine.precision == "int8"
    assert by_file.score(PAIRS).tolist() == by_folder.score(PAIRS).tolist()


def test_an_int8_that_ranks_otherwise_is_refused_and_leaves_nothing(traced, tiny_reranker, tmp_path):
    with pytest.raises(ParityError) as caught:
        ModelOptimizer(tiny_reranker).export_to_onnx(
            tmp_path / "exact.onnx", quantize=True, num_samples=32, min_rank_correlation=1.0
        )
    message = str(caught.value)
    assert "on 32 sample pairs; nothing was written" in message
    assert (
        "dynamic: Spearman's" in message
        and "rows: " in message
        and "static: " in message
        and "blockwise: Spearman's" in message
        and "try: precision fp16" in message
    )
    assert not (tmp_path / "exact.onnx").exists() and not (tmp_path / "exact-onnx").exists()


def test_row_scales_change_nothing_in_fp32_and_make_int8_more_faithful(tiny_reranker):
    import torch

    from ranker.scoring.row_scale import RowScaled, with_row_scales
    from ranker.scoring.torch_engine import load_model

    model = load_model(tiny_reranker)
    scaled = with_row_scales(model)
    assert sum(isinstance(part, RowScaled) for part in scaled.modules()) == 2 * 6  # six products a layer
    assert not any(isinstance(part, RowScaled) for part in model.modules())
    ids = torch.tensor([[2, 30, 3, 40, 3], [2, 31, 3, 3, 0]])
    mask = (ids != 0).long()
    with torch.inference_mode():
        torch.testing.assert_close(scaled(ids, mask).logits, model(ids, mask).logits, atol=1e-5, rtol=0)
        smooth = with_row_scales(model, [{"input_ids": ids.numpy(), "attention_mask": mask.numpy()}])
        torch.testing.assert_close(smooth(ids, mask).logits, model(ids, mask).logits, atol=1e-5, rtol=0)
    quieter = [part.quieter for part in smooth.modules() if isinstance(part, RowScaled)]
    assert all((part != 1).any() for part in quieter)  # and something was smoothed
    # One loud token in a batch: a range for all leaves the quiet one few steps, a range for each does not.
    linear = torch.nn.Linear(8, 4)
    states = torch.stack([torch.linspace(-1, 1, 8), torch.linspace(-90, 90, 8)])
    exact = linear(states)[0]

    def quantised(values):
        step = values.abs().max() / 127
        return torch.round(values / step) * step

    one_range = linear(quantised(states))[0]
    own = states.abs().amax(-1, keepdim=True)
    own_range = (torch.nn.functional.linear(quantised(states / own), linear.weight) * own + linear.bias)[0]
    assert (own_range - exact).abs().max() < 0.1 * (one_range - exact).abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["dynamic", "rows", "static", "mixed", "blockwise"])
def test_every_recipe_of_int8_writes_a_graph_that_scores(recipe, tiny_reranker, tmp_path, request):
    if recipe != "rows":  # whose graph is another
        request.getfixturevalue("traced")
    done = export(experiment(tiny_reranker, tmp_path, precision="int8", int8_recipe=recipe, num_samples=64,
                             min_rank_correlation=0.4, max_ndcg_loss=1.0))  # fmt: skip
    assert done.outcome["recipe"] == recipe and not list(done.folder.glob("rows*"))
    assert load_scorer(done.folder).score(PAIRS).shape == (3,)


def test_fp16_keeps_the_scores_in_a_smaller_file(traced, exported, tiny_reranker, tmp_path):
    done = export(experiment(tiny_reranker, tmp_path, precision="fp16"))
    assert done.outcome["largest_difference"] < 0.05
    shrunk = (done.folder / "model.onnx").stat().st_size / (exported / "model.onnx").stat().st_size
    assert shrunk < 0.9  # of a tiny model, the graph itself is most of the file


def test_an_unfinished_training_and_contradictions_are_refused(tmp_path):
    with pytest.raises(StageError, match="no finished stage here"):
        export(Experiment(output_dir=str(tmp_path)))
    assert choose_precision(True, None) == "int8" and choose_precision(False, "fp16") == "fp16"
    for quantize, precision in ((True, "fp32"), (False, "int8")):
        with pytest.raises(ValueError, match="quantize=True means int8"):
            choose_precision(quantize, precision)


def test_samples_are_the_users_own_documents_of_each_query_in_turn(tmp_path):
    rows = {"query_id": ["1", "2"], "query": ["cat", "dog"], "documents": [["a", "b", "c"], ["d"]],
            "labels": [[1.0, 0.0, 0.0], [1.0]]}  # fmt: skip
    pq.write_table(pa.table(rows, schema=GROUPS), tmp_path / "groups.parquet")
    file = tmp_path / "groups.parquet"
    assert sample_pairs(file, 8).pairs == [("cat", "a"), ("dog", "d"), ("cat", "b"), ("cat", "c")]
    assert sample_pairs(file, 8).labels.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert sample_pairs(file, 2).pairs == [("cat", "a"), ("cat", "b")]
    # What static int8 was calibrated on is left out, as long as as much remains.
    assert sample_pairs(file, 2, skip=1).pairs == [("dog", "d")] and len(sample_pairs(file, 8, skip=2).pairs) == 4
    assert sample_pairs(None, 3).pairs == builtin_pairs()[:3] and sample_pairs(None, 3).labels is None


def test_the_pairs_of_a_finished_mine_stage_are_found(tmp_path):
    def write(work: Path) -> dict:
        pq.write_table(pa.table({"query_id": ["1"], "query": ["cat"], "documents": [["a"]], "labels": [[1.0]]},
                                schema=GROUPS), work / "groups.parquet")  # fmt: skip
        pq.write_table(GROUPS.empty_table(), work / "dev_groups.parquet")  # no dev split: nothing to take
        return {}

    assert sample_file(tmp_path / "mine") is None
    run_stage("mine", tmp_path / "mine", {}, {}, write)
    assert sample_file(tmp_path / "mine") == tmp_path / "mine" / "groups.parquet"
