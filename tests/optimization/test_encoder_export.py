"""A bi-encoder's graphs give torch's vectors, and the one that is fastest and faithful is used afterwards."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from ranker.optimization.encoder_export import export_encoder, settle_encoder
from ranker.retrieval import engines
from ranker.retrieval.encoder import Encoder

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
