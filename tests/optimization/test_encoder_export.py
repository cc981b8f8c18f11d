"""A bi-encoder's graphs give torch's vectors, and the one that is fastest and faithful is used afterwards."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.cli.scoring import encoder_engines
from ranker.config import ConfigError
from ranker.optimization.encoder_export import export_encoder, settle_encoder
from ranker.retrieval import engines
from ranker.retrieval.encoder import Encoder
from ranker.schemas import GROUPS

TEXTS = ["a cat sleeps", "", "dogs bark at night " * 30, "a parrot of 12 kg"]


@pytest.fixture(scope="module")
def folder(tiny_retriever, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("encoder") / "model"
    shutil.copytree(tiny_retriever, place)
    export_encoder(place)
    return place


def test_the_graph_gives_torch_s_vectors_whatever_the_batch(folder):
    exact = Encoder(str(folder), precision="fp32", device="cpu", engine="torch")
    graph = Encoder(str(folder), precision="fp32", device="cpu", engine="onnx", batch_size=2)
    assert graph.engine == "onnx" and isinstance(graph.transformer, engines.OnnxBody)
    np.testing.assert_allclose(graph.encode_documents(TEXTS), exact.encode_documents(TEXTS), atol=1e-5)
    np.testing.assert_allclose(graph.encode_queries(TEXTS[:1]), exact.encode_queries(TEXTS[:1]), atol=1e-5)
    assert not list(folder.glob(".export-*"))


def test_auto_follows_what_was_measured(folder, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "ranker.retrieval")
    decision = settle_encoder(folder, TEXTS)
    assert [trial["precision"] for trial in decision["trials"] if trial["engine"] == "onnx"] == ["fp32", "int8"]
    assert "chosen" in caplog.text and decision["chosen"]["smallest_cosine"] >= engines.MIN_COSINE
    encoder = Encoder(str(folder), device="cpu")
    assert (encoder.engine, encoder.precision) == (decision["chosen"]["engine"], decision["chosen"]["precision"])
    monkeypatch.setattr(engines, "processor", lambda: "another machine")
    assert Encoder(str(folder), device="cpu").engine == "torch"


def test_a_graph_that_cannot_run_is_a_failure_and_the_others_are_measured(tiny_retriever, tmp_path):
    place = Path(shutil.copytree(tiny_retriever, tmp_path / "model"))
    (place / "onnx").mkdir()
    (place / "onnx" / "model_int8.onnx").write_text("no graph")
    decision = settle_encoder(place, TEXTS)
    assert decision["chosen"]["engine"] == "torch"
    [failure] = decision["failures"]
    assert failure["precision"] == "int8" and "cannot run: " in failure["failure"]


def test_the_command_measures_an_encoder_on_the_user_s_own_texts(tiny_retriever, tmp_path):
    place = Path(shutil.copytree(tiny_retriever, tmp_path / "model"))
    row = {"query_id": "q", "query": "a cat", "doc_ids": ["a", "b"], "documents": ["one", "two"], "labels": [1.0, 0.0],
           "scores": [0.5, 0.25]}  # fmt: skip
    table = pa.table({name: [row[name]] for name in GROUPS.names}, schema=GROUPS)
    pq.write_table(table, tmp_path / "groups.parquet")
    found = encoder_engines(str(place), False, tmp_path / "groups.parquet", ["max_length=16"])
    assert found["texts"] == 3 and found["samples"].endswith("groups.parquet")
    with pytest.raises(ConfigError, match="--set precision: of a bi-encoder every way is measured; samples, num_sam"):
        encoder_engines(str(place), False, None, ["precision=bf16"])
    with pytest.raises(FileNotFoundError, match=r"absent\.parquet: no such file"):
        encoder_engines(str(place), False, tmp_path / "absent.parquet")


def test_unfaithful_vectors_are_never_chosen(tmp_path):
    exact = np.eye(2, dtype=np.float32)
    turned = np.array([[0.9, 0.436], [0.436, 0.9]], dtype=np.float32)
    ways = {("torch", "fp32"): lambda texts: sum(range(300_000)) and exact, ("onnx", "int8"): lambda texts: turned}
    decision = engines.decide(tmp_path, ["a", "b"], ways)
    assert decision["chosen"]["engine"] == "torch" and decision["trials"][1]["smallest_cosine"] == pytest.approx(0.9)
    assert json.loads((tmp_path / engines.FILE).read_text())[engines.machine_key()] == decision


def test_a_graph_that_is_none_or_not_there_is_refused(tiny_retriever, tmp_path):
    with pytest.raises(ValueError, match=r"has no graph in fp32 for cpu; `ranker engines .* --export` writes"):
        Encoder(tiny_retriever, device="cpu", engine="onnx")
    shutil.copytree(tiny_retriever, tmp_path / "broken")
    (tmp_path / "broken" / "onnx").mkdir()
    (tmp_path / "broken" / "onnx" / "model.onnx").write_text("no graph")
    with pytest.raises(engines.GraphError, match="ONNX Runtime cannot load it"):
        Encoder(str(tmp_path / "broken"), device="cpu", engine="onnx")
