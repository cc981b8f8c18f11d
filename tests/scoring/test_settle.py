"""The best way to run a model is measured once, remembered, and never one that ranks otherwise."""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ranker.config import ScoringConfig
from ranker.manifest import run_stage
from ranker.scoring import decisions, load_scorer, settle
from ranker.scoring.choice import Trial, Way, fastest, report, why_not
from ranker.scoring.graph_notes import graph_notes
from ranker.scoring.model_folder import find_model
from ranker.scoring.onnx_engine import OnnxEngine
from ranker.scoring.parity import Parity, compare, ndcg_loss
from ranker.scoring.ways import fixed_way, graph_precision, possible_ways

EXACT = Way("torch", "fp32", None, 1, 2)
QUICK = Way("onnx", "int8", "onnx/model_int8.onnx", 2, 2)
CONFIG = ScoringConfig(threads=2)


def parity(correlation: float = 1.0, loss: float = 0.0, difference: float = 0.1) -> Parity:
    return Parity("any", 64, difference, correlation, loss)


def test_the_fastest_way_that_ranks_as_fp32_is_taken():
    trials = [Trial(EXACT, 10.0, None), Trial(QUICK, 30.0, parity(0.995, 0.001))]
    assert fastest(trials, CONFIG).way == QUICK
    for bad, reason in (
        (parity(0.98), "rank correlation 0.9800 is below 0.9900"),
        (parity(loss=0.01), "NDCG@10 falls by 0.0100, allowed is 0.0020"),
        (parity(difference=float("nan")), "its logits are not finite"),
    ):
        trials = [Trial(EXACT, 10.0, None), Trial(QUICK, 30.0, bad)]
        assert fastest(trials, CONFIG).way == EXACT and why_not(trials[1], CONFIG) == reason
    assert fastest(trials, ScoringConfig()).way == EXACT
    lines = report(trials, EXACT, CONFIG)
    assert lines[0].startswith("onnx int8 (onnx/model_int8.onnx), 2 x 1 threads: 30.0 pairs/s, rank correlation 1.0")
    assert lines[0].endswith("not allowed: its logits are not finite") and lines[1].endswith("the reference; chosen")
    with pytest.raises(
        ValueError, match=r"no way to run this model .* torch fp32, 1 x 2 threads: cannot run: no memory"
    ):
        fastest([Trial(EXACT, 0.0, None, "cannot run: no memory")], CONFIG)


def test_the_loss_in_ndcg_is_that_of_the_labels_or_of_fp32_s_own_gains():
    pairs = [("q", "a"), ("q", "b"), ("alone", "a")]
    exact, swapped = np.array([2.0, 1.0, 0.0]), np.array([1.0, 2.0, 0.0])
    labels = np.array([1.0, 0.0, 1.0])
    # The one relevant document falls from rank 1 to rank 2; a list of one has no order.
    assert ndcg_loss(exact, swapped, pairs, labels) == pytest.approx(1 - 1 / np.log2(3))
    assert ndcg_loss(swapped, exact, pairs, labels) == pytest.approx(1 / np.log2(3) - 1)  # better is negative
    gains = 1 / (1 + np.exp(-exact[:2]))
    ideal, found = gains @ [1, 1 / np.log2(3)], gains[::-1] @ [1, 1 / np.log2(3)]
    assert ndcg_loss(exact, swapped, pairs) == pytest.approx(1 - found / ideal)
    assert compare("same", exact, exact, pairs).ndcg_loss == 0.0


@pytest.fixture
def folder(tiny_reranker, tmp_path) -> Path:
    """A model with a graph of its own beside the weights; the graph is none, so it cannot be opened."""
    shutil.copytree(tiny_reranker, tmp_path / "model", ignore=shutil.ignore_patterns(".*"))
    (tmp_path / "model" / "onnx").mkdir()
    (tmp_path / "model" / "onnx" / "model_int8.onnx").write_bytes(b"no graph")
    return tmp_path / "model"


def test_every_way_is_listed_the_exact_one_first(folder, monkeypatch):
    monkeypatch.setattr("ranker.scoring.ways.find_spec", lambda name: None)
    monkeypatch.setattr("ranker.scoring.ways.instruction_sets", lambda: ("avx2", "avx512_bf16"))
    files = find_model(folder)
    assert [str(way) for way in possible_ways(files, CONFIG)] == [
        "torch fp32, 1 x 2 threads", "torch fp32, 2 x 1 threads", "torch bf16, 1 x 2 threads",
        "torch bf16, 2 x 1 threads", "onnx int8 (onnx/model_int8.onnx), 1 x 2 threads",
        "onnx int8 (onnx/model_int8.onnx), 2 x 1 threads",
    ]  # fmt: skip
    assert len(possible_ways(files, ScoringConfig(threads=2, lanes=2))) == 3
    assert fixed_way(files, ScoringConfig(precision="fp32", lanes=2, threads=4)) == Way("torch", "fp32", None, 2, 4)


def test_the_choice_is_measured_logged_kept_and_then_instant(folder, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "ranker.scoring")
    first = load_scorer(folder, CONFIG)
    assert "measuring" in caplog.text and "pairs/s" in caplog.text and "chosen" in caplog.text
    assert "not allowed: cannot run" in caplog.text  # the graph that is none is said, and harms nothing
    [kept] = json.loads((folder / decisions.FILE).read_text()).values()
    assert kept["samples"] == "built-in" and kept["chosen"]["engine"] == "torch"
    assert {trial["way"]["engine"] for trial in kept["trials"]} >= {"torch", "onnx"}

    monkeypatch.setattr(settle, "try_ways", lambda *_: pytest.fail("measured again"))
    again = load_scorer(folder, CONFIG)
    assert again.engine.lanes.lanes == first.engine.lanes.lanes and again.engine.name == "torch"
    assert settle.decision(find_model(folder), again.max_length, CONFIG) == kept
    # Another model in the same place, or other settings, are another decision.
    files = find_model(folder)
    key = decisions.decision_key(files, 64, 2, CONFIG)
    assert decisions.decision_key(files, 64, 2, ScoringConfig(min_rank_correlation=0.9)) != key
    shared = ScoringConfig(interpolation=0.5, cascade_tokens=16, max_passages=4, cache_pairs=9)
    assert decisions.decision_key(files, 64, 2, shared) == key  # every way does the same with these
    (folder / "onnx" / "model_int8.onnx").write_bytes(b"another")
    assert decisions.decision_key(files, 64, 2, CONFIG) != key


def test_the_key_of_a_decision_reads_no_weights(folder, tmp_path, monkeypatch):
    def read(*_):
        raise AssertionError("a file was read")

    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", read)
        key = decisions.decision_key(find_model(folder), 64, 2, CONFIG)
        copy = shutil.copytree(folder, tmp_path / "copy")
        assert decisions.decision_key(find_model(copy), 64, 2, CONFIG) == key
        os.utime(copy / "model.safetensors", (1, 1))
        assert decisions.decision_key(find_model(copy), 64, 2, CONFIG) != key
    # A finished stage is what its key says, whenever its files were copied; what was added to it counts besides.
    made = run_stage(
        "train", tmp_path / "made", {}, {}, lambda work: shutil.copytree(folder, work, dirs_exist_ok=True) and {}
    )
    key = decisions.decision_key(find_model(made.folder), 64, 2, CONFIG)
    os.utime(made.folder / "model.safetensors", (1, 1))
    assert decisions.decision_key(find_model(made.folder), 64, 2, CONFIG) == key
    os.utime(made.folder / "onnx" / "model_int8.onnx", (1, 1))
    assert decisions.decision_key(find_model(made.folder), 64, 2, CONFIG) != key


def test_a_folder_that_cannot_be_written_and_a_broken_note_are_no_obstacle(folder, monkeypatch):
    files = find_model(folder)
    (folder / decisions.FILE).write_text("{broken")
    assert decisions.recall(files, "key") is None
    monkeypatch.setattr("os.access", lambda *_: False)
    place = decisions.keep(files, "key", {"chosen": 1})
    assert place is not None and place.parent == decisions.cache_folder()
    assert decisions.recall(files, "key") == {"chosen": 1}


def test_where_no_folder_can_be_written_measuring_goes_on_without_a_lock(folder, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RANKER_HOME", str(tmp_path / "file"))  # nothing can be made below a file, not even by root
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr(settle, "_measured", lambda files, tokenizer, length, config, ways, key: ways[0])
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "file"))
    assert load_scorer(folder, CONFIG).engine.name == "torch"
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with decisions.alone("key"):
        assert (tmp_path / ".key.lock").exists()
    assert decisions.keep(find_model(folder), "key", {"chosen": 1}) is None


def test_a_user_without_a_home_has_a_cache_all_the_same(monkeypatch):
    for name in ("RANKER_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("no home")))
    assert decisions.cache_folder().name == "scoring"


def test_what_is_named_is_taken_without_measuring(folder, monkeypatch):
    monkeypatch.setattr(settle, "try_ways", lambda *_: pytest.fail("measured"))
    assert load_scorer(folder, ScoringConfig(engine="torch")).engine.lanes.lanes == 1
    assert load_scorer(folder, ScoringConfig(precision="fp32", lanes=2, threads=2)).engine.lanes.lanes == 2
    with pytest.raises(FileNotFoundError, match=r"scoring\.samples: .*absent\.parquet: no such file"):
        load_scorer(folder, ScoringConfig(samples="absent.parquet", threads=2))


def graph_file(place: Path, precision: str) -> Path:
    """An ONNX graph that says its precision and has one node."""
    import onnx
    from onnx import TensorProto, helper

    row = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("x", "logits")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["logits"])], "one", row[:1], row[1:])
    model = helper.make_model(graph)
    helper.set_model_props(model, {"precision": precision})
    place.parent.mkdir(exist_ok=True)
    onnx.save(model, place)
    return place


def test_a_graph_s_own_word_is_read_without_its_weights(tmp_path, monkeypatch):
    import onnx
    from onnx import helper, numpy_helper

    file = graph_file(tmp_path / "one" / "model.onnx", "int8")
    model = onnx.load(file)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1_000_000, np.float32), "weights"))
    helper.set_model_props(model, {"precision": "fp16", "made": "x" * 300})
    onnx.save(model, file)
    assert graph_notes(file) == {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    monkeypatch.setattr("onnx.load", lambda *_, **__: pytest.fail("the weights were read"))
    assert graph_precision(file) == "fp16"
    file.write_bytes(b"no graph")
    assert graph_precision(file.rename(tmp_path / "model_int8.onnx")) == "int8"  # what its name means


def test_a_precision_that_is_named_is_that_of_the_graph(folder):
    half = graph_file(folder / "onnx" / "model_fp16.onnx", "fp16")
    graph_file(folder / "onnx" / "model.onnx", "fp32")
    graph_file(folder / "onnx" / "model_int8.onnx", "int8")
    files = find_model(folder)

    def graph(engine: str, precision: str) -> str | None:
        return fixed_way(files, ScoringConfig(engine=engine, precision=precision)).graph

    assert graph("onnx", "auto") == graph("onnx", "fp32") == "onnx/model.onnx"
    assert graph("onnx", "fp16") == "onnx/model_fp16.onnx"
    assert graph("onnx", "int8") == graph("auto", "int8") == "onnx/model_int8.onnx"
    assert graph("openvino", "bf16") == "onnx/model.onnx"  # its arithmetic, not the file's
    with pytest.raises(ValueError, match=r"'bf16'.*only onnx/model\.onnx \(fp32\), onnx/model_fp16\.onnx \(fp16\)"):
        graph("onnx", "bf16")
    with pytest.raises(ValueError, match="'int8': torch computes in fp32, bf16 or fp16"):
        graph("torch", "int8")
    # The file alone is enough: tokenizer and configuration lie above it.
    alone = find_model(half)
    assert Path(alone.model) == folder and fixed_way(alone, ScoringConfig()).graph == "onnx/model_fp16.onnx"


@pytest.mark.parametrize(("lanes", "threads", "pool"), [(1, 4, 4), (2, 4, 3), (2, 8, 7), (4, 8, 5), (4, 4, 1)])
def test_every_lane_of_a_graph_has_its_threads(lanes, threads, pool, tmp_path):
    # A run of a session of n threads computes in n - 1 of its own and in the one that asks.
    engine = OnnxEngine(graph_file(tmp_path / "one" / "model.onnx", "fp32"), threads, lanes)
    assert engine.session.get_session_options().intra_op_num_threads == pool
    assert pool - 1 + lanes == threads == engine.lanes.threads * lanes


def test_a_device_that_an_engine_cannot_use_is_refused(folder):
    graph_file(folder / "onnx" / "model.onnx", "fp32")
    for engine in ("onnx", "openvino"):
        with pytest.raises(ValueError, match=f"device 'cuda': the engine {engine} computes on the CPU; name"):
            load_scorer(folder, ScoringConfig(engine=engine), "cuda")


@pytest.mark.parametrize("lanes", [1, 2])
def test_logits_do_not_depend_on_lanes_or_batch_mates(tiny_reranker, lanes):
    config = ScoringConfig(precision="fp32", lanes=lanes, threads=2, batch_tokens=64)
    scorer = load_scorer(tiny_reranker, config, "cpu")
    pairs = [("cat", "a dog " * number) for number in range(30)]
    together = scorer.score(pairs)
    alone = np.concatenate([scorer.score([pair]) for pair in pairs])
    np.testing.assert_allclose(together, alone, atol=1e-5)
