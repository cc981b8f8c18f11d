import json
import logging

import ir_measures
import pyarrow.parquet as pq
import pytest
from ir_measures import AP, RR, Success, nDCG

from ranker.config import ConfigError, Experiment
from ranker.data.catalog import prepare
from ranker.evaluation import evaluate as door
from ranker.evaluation.evaluate import evaluate, retrieval_depth, sample_queries
from ranker.manifest import StageError
from ranker.measures import MeasureError
from ranker.retrieval.index import build_index

MEASURES = {"ndcg@10": nDCG @ 10, "mrr@10": RR @ 10, "map": AP, "hit_rate@10": Success @ 10}


def test_a_sample_of_the_judged_queries_is_seeded_and_keeps_the_order(letters) -> None:
    one = sample_queries(letters, 2, seed=1)
    assert one.queries.num_rows == 2 and one.queries.equals(sample_queries(letters, 2, seed=1).queries)
    assert {tuple(sample_queries(letters, 2, seed).queries["query_id"].to_pylist()) for seed in range(9)} > {
        tuple(one.queries["query_id"].to_pylist())
    }
    assert set(one.qrels["query_id"].to_pylist()) == set(one.queries["query_id"].to_pylist())
    assert sample_queries(letters, None, seed=1).queries.equals(letters.queries)


def test_no_judged_query_is_an_error_that_says_so(letters) -> None:
    with pytest.raises(StageError, match="no judged queries"):
        sample_queries(type(letters)("x", "test", letters.corpus, letters.queries, letters.qrels.slice(0, 0)), None, 1)


def test_the_first_stage_is_as_deep_as_reranking_and_the_deepest_measure() -> None:
    assert retrieval_depth(30, ["ndcg@10", "map"]) == 30
    assert retrieval_depth(30, ["recall@100"]) == 100


@pytest.fixture(scope="module")
def experiment(pets, tiny_retriever, tiny_reranker, tmp_path_factory, ray_cluster) -> Experiment:
    config = Experiment().with_overrides({
        "name": "pets", "output_dir": str(tmp_path_factory.mktemp("run")), "data.source": str(pets),
        "index.model": tiny_retriever, "index.num_workers": 1, "index.max_length": 64,
        "evaluate.model": tiny_reranker, "evaluate.depth": 5, "evaluate.significance_permutations": 100,
        "evaluate.scoring.precision": "fp32",
    })  # fmt: skip
    prepare(config)
    build_index(config)
    return config


def test_the_stage_leaves_figures_that_another_tool_finds_too(experiment, monkeypatch) -> None:
    done = evaluate(experiment)
    folder = done.folder
    assert done.outcome["num_queries"] == 2
    metrics = json.loads((folder / "metrics.json").read_text())
    qrels = list(ir_measures.read_trec_qrels(str(folder / "qrels.trec")))
    for system in ("bm25", "retriever", "reranked"):
        run = list(ir_measures.read_trec_run(str(folder / "runs" / f"{system}.trec")))
        theirs = ir_measures.calc_aggregate(list(MEASURES.values()), qrels, run)
        for name, measure in MEASURES.items():
            assert metrics["means"][system][name] == pytest.approx(theirs[measure], abs=1e-9)
    assert metrics["significance"].keys() == {"bm25", "retriever"}
    assert metrics["speed"]["pairs"] == 10
    assert pq.read_table(folder / "per_query.parquet").num_rows == 3 * 4 * 2
    produced = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert produced == {
        "manifest.json", "metrics.json", "per_query.parquet", "qrels.trec", "change.png", "experiment.yaml",
        "report.html", "report.md", *(f"runs/{name}.{end}" for name in metrics["means"] for end in ("trec", "parquet")),
    }  # fmt: skip
    monkeypatch.setattr(door, "_make", None)
    assert evaluate(experiment).skipped


def test_an_interrupted_stage_keeps_its_runs(experiment, monkeypatch, caplog) -> None:
    config = experiment.with_overrides({"evaluate.depth": 3, "evaluate.max_queries": 1})

    def full_disk(*_args: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(door, "write_report", full_disk)
        with pytest.raises(OSError, match="no space"):
            evaluate(config)
    whole = config.folder("evaluate") / "report.md"
    assert not whole.exists() or "top 3" not in whole.read_text()
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(door, "_bm25", None)
    monkeypatch.setattr(door, "_search", None)
    assert evaluate(config).outcome["num_queries"] == 1
    assert "shards to do" not in caplog.text


def test_mistakes_are_found_before_anything_runs(experiment, tmp_path) -> None:
    with pytest.raises(MeasureError, match="ndgc"):
        evaluate(experiment.with_overrides({"evaluate.measures": ["ndgc@10"]}))
    with pytest.raises(StageError, match="run the stage that writes it first"):
        evaluate(experiment.with_overrides({"evaluate.model": None}))
    with pytest.raises(StageError, match="run the stage that writes it first"):
        evaluate(Experiment(output_dir=str(tmp_path)))
    with pytest.raises(ConfigError):
        experiment.with_overrides({"evaluate.depth": 0})


def test_a_mixed_list_comes_with_the_cross_encoder_alone(ranked) -> None:
    scored, first = ranked(q1="b a"), ranked(q1="a b c")
    assert door._final_lists(scored, first, 0.0).keys() == {"reranked"}
    lists = door._final_lists(scored, first, 0.9)
    assert lists["cross-encoder"]["doc_id"].to_pylist() == ["b", "a", "c"]
    assert lists["reranked"]["doc_id"].to_pylist() == ["a", "b", "c"]
