"""The best and the default with several seeds, and the one look at test."""

import json

import pytest

from ranker.config import Experiment
from ranker.data.catalog import prepare
from ranker.retrieval.index import build_index
from ranker.tuning.bench import Bench
from ranker.tuning.repeats import _on_test, has_test


@pytest.fixture
def prepared(pets, tmp_path, tiny_retriever, encode_here, ray_cluster) -> Experiment:
    """The pets with an index, and an `evaluate` that asks for more than a sweep needs."""
    config = Experiment().with_overrides({
        "output_dir": str(tmp_path / "run"), "data.source": str(pets), "index.model": tiny_retriever,
        "index.num_workers": 1, "evaluate.num_workers": 1, "evaluate.depth": [4, 8], "evaluate.suite": str(pets),
        "evaluate.models": ["another/model"], "evaluate.scoring.engine": "torch", "evaluate.scoring.max_length": 32,
    })  # fmt: skip
    prepare(config)
    build_index(config)
    return config


def test_test_is_measured_once_for_one_model_whatever_the_experiment_evaluates(
    prepared, tiny_reranker, tmp_path
) -> None:
    assert has_test(prepared)
    assert not has_test(prepared.with_overrides({"index.output_dir": str(tmp_path / "none")}))
    value, per_query = _on_test(Bench(prepared, tmp_path, 1), tiny_reranker, tmp_path / "test")
    assert len(per_query) == 2, "the pets have two test queries"
    assert value == pytest.approx(sum(per_query.values()) / 2) and 0 <= value <= 1
    means = json.loads((tmp_path / "test" / "metrics.json").read_text())["means"]
    assert {name: list(told) for name, told in means.items()} == {"retriever": ["ndcg@10"], "reranked": ["ndcg@10"]}
