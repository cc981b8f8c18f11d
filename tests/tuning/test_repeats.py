"""The best and the default with several seeds, and the one look at test."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.exceptions import ActorDiedError

from ranker.config import Experiment
from ranker.data.catalog import prepare
from ranker.manifest import run_stage
from ranker.retrieval.index import build_index
from ranker.tuning.bench import Bench
from ranker.tuning.recipe import Recipe
from ranker.tuning.repeats import BEST, DEFAULT, _on_test, changes_nothing, fresh_seeds, gains, has_test, repeat


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


def test_of_evaluate_only_one_model_one_depth_and_one_measure_is_asked(tmp_path, monkeypatch) -> None:
    asked = list[Experiment]()

    def evaluate(config: Experiment) -> object:
        asked.append(config)

        def make(work: Path) -> dict:
            (work / "metrics.json").write_text(json.dumps({"means": {"reranked": {"ndcg@10": 0.75}}}))
            rows = {"system": ["retriever", "reranked", "reranked"], "query_id": ["q1", "q1", "q2"]}
            pq.write_table(pa.table({**rows, "value": [0.1, 0.5, 1.0]}), work / "per_query.parquet")
            return {}

        return run_stage("evaluate", config.folder("evaluate"), {}, {}, make)

    monkeypatch.setattr("ranker.evaluation.evaluate.evaluate", evaluate)
    base = Experiment().with_overrides({
        "evaluate.suite": "somewhere", "evaluate.first_stage": "bm25", "evaluate.models": ["another/model"],
        "evaluate.depth": [20, 50], "evaluate.max_queries": 9,
    })  # fmt: skip
    assert _on_test(Bench(base, tmp_path, 1), tmp_path / "m", tmp_path / "test") == (0.75, {"q1": 0.5, "q2": 1.0})
    told = asked[0].evaluate
    assert (told.suite, told.models, told.depth, told.latency_queries, told.bm25) == (None, (), (20,), 0, False)
    assert (told.model, told.measures, told.max_queries) == (str(tmp_path / "m"), ("ndcg@10",), 9)


@pytest.mark.slow
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


def test_the_best_is_told_from_the_default_with_seeds_that_no_trial_has_had() -> None:
    assert fresh_seeds(13, Recipe(({},)), 3) == [14, 15, 16]
    assert fresh_seeds(13, Recipe(({"seed": 15}, {"seed": 14})), 3) == [16, 17, 18]


def test_a_lost_process_is_not_a_failed_recipe(tmp_path, monkeypatch) -> None:
    seen = list[tuple[int, float]]()

    def fit(config: Experiment, callbacks: object = ()) -> object:
        seen.append((config.seed, config.train.learning_rate))
        if len(seen) == 1:
            raise ActorDiedError()
        if config.seed == 15 and config.train.learning_rate == 0.5:
            raise ValueError("the loss is nan")

        def make(work: Path) -> dict:
            told = {"step": 4, "total": 4, "dev": {"ndcg@10": config.train.learning_rate}}
            (work / "training_log.jsonl").write_text(json.dumps(told))
            return {}

        return run_stage("train", config.folder("train"), {"seed": config.seed}, {}, make)

    monkeypatch.setattr("ranker.training.trainer.fit", fit)
    base = Experiment().with_overrides({"tune.num_seeds": 2, "output_dir": str(tmp_path), "train.learning_rate": 0.25})
    told = repeat(Bench(base, tmp_path, 1), Recipe(({"train.learning_rate": 0.5},)))
    assert seen == [(14, 0.25), (14, 0.25), (14, 0.5), (15, 0.25), (15, 0.5)], "the lost one once more"
    assert [(each.who, each.seed, each.dev) for each in told] == [
        (DEFAULT, 14, 0.25), (BEST, 14, 0.5), (DEFAULT, 15, 0.25), (BEST, 15, None),
    ]  # fmt: skip
    assert told[3].error == "ValueError: the loss is nan"
    assert gains(told)["dev"].gain == 0.25 and "test" not in gains(told)


def test_a_best_that_changes_nothing_is_trained_once_a_seed(tmp_path, monkeypatch) -> None:
    seen = list[int]()

    def fit(config: Experiment, callbacks: object = ()) -> object:
        seen.append(config.seed)

        def make(work: Path) -> dict:
            (work / "training_log.jsonl").write_text(json.dumps({"step": 4, "total": 4, "dev": {"ndcg@10": 0.5}}))
            return {}

        return run_stage("train", config.folder("train"), {"seed": config.seed}, {}, make)

    monkeypatch.setattr("ranker.training.trainer.fit", fit)
    base = Experiment().with_overrides({"tune.num_seeds": 2, "output_dir": str(tmp_path), "train.learning_rate": 0.25})
    first = Recipe(({"train.learning_rate": 0.25, "seed": 14},))
    told = repeat(Bench(base, tmp_path, 1), first)
    assert seen == [15, 16] and [(each.who, each.seed) for each in told] == [
        (DEFAULT, 15), (BEST, 15), (DEFAULT, 16), (BEST, 16),
    ]  # fmt: skip
    assert gains(told)["dev"].gain == 0.0 and not gains(told)["dev"].real
    assert changes_nothing(base, first) and not changes_nothing(base, Recipe(({}, {"train.learning_rate": 0.25})))
