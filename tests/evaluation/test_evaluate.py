import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow.parquet as pq
import pytest
from ir_measures import AP, RR, Success, nDCG

from ranker.cli.stages import run
from ranker.config import ConfigError, Experiment, load_experiment
from ranker.data.catalog import prepare
from ranker.evaluation import evaluate as door
from ranker.evaluation import systems
from ranker.evaluation.candidates import sample_queries
from ranker.evaluation.evaluate import evaluate
from ranker.evaluation.reranking import Scored
from ranker.evaluation.systems import final_lists, labels_of, pairs_of, retrieval_depth
from ranker.evaluation.tasks import missing_tasks, read_scores, score_task
from ranker.manifest import StageError
from ranker.measures import MeasureError
from ranker.retrieval.index import build_index
from ranker.scoring.scorer import load_scorer

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
def plain(pets, tiny_reranker, tmp_path_factory) -> Experiment:
    """Reranks BM25's list, so that nothing needs Ray but the scoring."""
    config = Experiment().with_overrides({
        "name": "pets", "output_dir": str(tmp_path_factory.mktemp("run")), "data.source": str(pets),
        "evaluate.model": tiny_reranker, "evaluate.depth": 5, "evaluate.significance_permutations": 100,
        "evaluate.scoring.precision": "fp32", "evaluate.latency_queries": 2, "evaluate.first_stage": "bm25",
    })  # fmt: skip
    prepare(config)
    return config


@pytest.fixture(scope="module")
def experiment(plain, tiny_retriever, ray_cluster) -> Experiment:
    """The same with a retriever, on a cluster."""
    config = plain.with_overrides({
        "index.model": tiny_retriever, "index.num_workers": 1, "index.max_length": 64,
        "evaluate.first_stage": "retriever",
    })  # fmt: skip
    build_index(config)
    return config


@pytest.fixture
def score_here(monkeypatch) -> None:
    """Pairs are scored in this process, without actors; test_reranking.py is about those."""

    def scored(model, tasks, folder, *, scoring, depths, **_) -> Scored:
        folder.mkdir(exist_ok=True)
        scorer = load_scorer(model, scoring)
        for number in missing_tasks(tasks, folder):
            score_task(scorer, tasks, number, folder)
        timed = {depth: (5.0 * depth, 6.0 * depth) for depth in depths}
        return Scored(read_scores(tasks, folder), 100.0, 2, 0.97, timed)

    monkeypatch.setattr(systems, "score_distributed", scored)
    monkeypatch.setattr(systems, "connected", lambda config: nullcontext())


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
    assert metrics["speed"]["pairs"] == 10 and 0 < metrics["speed"]["engine_busy"] <= 1
    (main,) = metrics["speed"]["rerankers"]
    assert main["p50_ms"] <= main["p95_ms"] and main["timed_queries"] == 2
    assert pq.read_table(folder / "per_query.parquet").num_rows == 3 * 4 * 2
    produced = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert produced == {
        "manifest.json", "metrics.json", "per_query.parquet", "qrels.trec", "change.png", "experiment.yaml",
        "report.html", "report.md", *(f"runs/{name}.{end}" for name in metrics["means"] for end in ("trec", "parquet")),
    }  # fmt: skip
    monkeypatch.setattr(door, "_make", None)
    assert evaluate(experiment).skipped


def test_several_models_and_depths_in_one_call(plain, score_here, tiny_reranker, tmp_path) -> None:
    other = Path(shutil.copytree(tiny_reranker, tmp_path / "other"))
    (tmp_path / "given.run").write_text(
        "".join(f"{query} Q0 d{n} {n} {-n} given\n" for query in ("q9", "q10") for n in range(1, 9))
    )
    config = plain.with_overrides({
        "evaluate.models": [str(other)], "evaluate.depth": [3, 5], "evaluate.first_stage": str(tmp_path / "given.run"),
        "evaluate.output_dir": str(tmp_path / "evaluation"), "evaluate.measures": ["ndcg@10", "judged@10"],
    })  # fmt: skip
    done = evaluate(config)
    metrics = json.loads((done.folder / "metrics.json").read_text())
    assert list(metrics["means"]) == ["bm25", "given", "reranked@5", "other", "other@5", "reranked"]
    assert metrics["means"]["reranked"] == metrics["means"]["other"]  # the same weights
    speeds = metrics["speed"]["rerankers"]
    assert [(each["system"], each["depth"]) for each in speeds] == [
        ("reranked", 3), ("reranked@5", 5), ("other", 3), ("other@5", 5),
    ]  # fmt: skip
    assert [each["p50_ms"] for each in speeds] == [16.5, 27.5, 16.5, 27.5]
    assert [each["p95_ms"] for each in speeds] == [17.9, 29.8, 17.9, 29.8]
    assert {"depth.png", "latency.png"} <= {path.name for path in done.folder.iterdir()}
    run = pq.read_table(done.folder / "runs" / "reranked.parquet").to_pandas()
    top = set(run[run["query_id"] == "q9"].sort_values("rank")["doc_id"].head(3))
    assert top == {"d1", "d2", "d3"}  # what a depth of 3 could change, and nothing else
    assert "scoring" not in {path.name for path in done.folder.iterdir()}


def test_with_a_cascade_each_depth_is_a_scoring_of_its_own(plain, score_here, tmp_path) -> None:
    """The best two of three are others than the best two of eight; what is read in full decides at each depth."""
    overrides = {
        "evaluate.scoring.cascade_tokens": 8, "evaluate.scoring.cascade_keep": 2, "evaluate.measures": ["ndcg@10"],
        "evaluate.first_stage": str(tmp_path / "given.run"),
    }  # fmt: skip
    (tmp_path / "given.run").write_text(
        "".join(f"{query} Q0 d{n} {n} {-n} given\n" for query in ("q9", "q10") for n in range(1, 9))
    )

    def lists(name: str, depth: object) -> dict:
        place = {"evaluate.depth": depth, "evaluate.output_dir": str(tmp_path / name)}
        runs = evaluate(plain.with_overrides({**overrides, **place})).folder / "runs"
        read = {file.stem: pq.read_table(file).drop(["score"]).to_pylist() for file in runs.glob("reranked*.parquet")}
        return {system: [(row["query_id"], row["doc_id"]) for row in rows] for system, rows in read.items()}

    both = lists("both", [8, 3])
    assert both["reranked"] == lists("deep", 8)["reranked"]
    assert both["reranked@3"] == lists("shallow", 3)["reranked"]


def test_a_suite_is_a_folder_of_collections_and_their_mean(plain, score_here, pets, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # paths of the experiment are those of the folder that it was started in
    for name in ("cats", "dogs"):
        shutil.copytree(pets, tmp_path / "suite" / name)
    judged = tmp_path / "suite" / "dogs" / "qrels" / "test.tsv"
    judged.write_text("\n".join(judged.read_text().splitlines()[:2]) + "\n")  # one query less
    config = plain.with_overrides({
        "evaluate.suite": "suite", "evaluate.first_stage": "bm25",
        "output_dir": "run", "evaluate.output_dir": str(tmp_path / "evaluation"),
    })  # fmt: skip
    done = evaluate(config)
    metrics = json.loads((done.folder / "metrics.json").read_text())
    assert metrics["num_queries"] == {"cats": 2, "dogs": 1} and list(metrics["means"]) == ["bm25", "reranked"]
    each = [metrics["by_collection"][name]["reranked"]["ndcg@10"] for name in ("cats", "dogs")]
    assert metrics["means"]["reranked"]["ndcg@10"] == pytest.approx(sum(each) / 2)
    assert {"report.html", "report.md", "cats", "dogs"} <= {path.name for path in done.folder.iterdir()}
    assert (done.folder / "dogs" / "runs" / "reranked.trec").is_file()
    assert 'href="cats/report.html"' in (done.folder / "report.html").read_text()
    # One of them is run again by itself, from the folder that it lies in, and into another.
    monkeypatch.chdir(done.folder / "dogs")
    again = load_experiment("experiment.yaml")
    assert again.folder("evaluate") == tmp_path / "run" / "suite" / "dogs" / "evaluation"
    assert run("evaluate", again).outcome["means"] == metrics["by_collection"]["dogs"]


@pytest.mark.slow
def test_a_suite_whose_first_stage_is_the_retriever_has_an_index_of_each_collection(
    plain, score_here, pets, tiny_retriever, tmp_path, ray_cluster
) -> None:
    for name in ("cats", "dogs"):
        shutil.copytree(pets, tmp_path / "suite" / name)
    for split in ("train", "dev"):  # as NanoBEIR's collections: a test split alone
        (tmp_path / "suite" / "dogs" / "qrels" / f"{split}.tsv").unlink()
    config = plain.with_overrides({
        "output_dir": str(tmp_path / "run"), "evaluate.suite": str(tmp_path / "suite"), "index.model": tiny_retriever,
        "evaluate.first_stage": "retriever", "index.num_workers": 1,
    })  # fmt: skip
    done = evaluate(config)
    metrics = json.loads((done.folder / "metrics.json").read_text())
    assert metrics["num_queries"] == {"cats": 2, "dogs": 2} and "retriever" in metrics["means"]
    assert metrics["by_collection"]["cats"] == metrics["by_collection"]["dogs"]
    assert {path.name for path in (tmp_path / "run" / "suite" / "dogs").iterdir()} >= {"data", "index"}
    assert evaluate(config).skipped
    assert not evaluate(config.with_overrides({"index.max_length": 8})).skipped


def test_a_suite_and_a_first_stage_that_cannot_be_are_refused(plain, tmp_path) -> None:
    run = tmp_path / "bm25.trec"
    run.write_text("q9 Q0 d1 1 1.0 x\n")
    with pytest.raises(StageError, match=r"each collection needs a first stage of its own, which the run .* is not"):
        evaluate(plain.with_overrides({"evaluate.suite": "beir/scifact", "evaluate.first_stage": str(run)}))
    with pytest.raises(StageError, match="'bm52': no such run file; write retriever, bm25, candidates"):
        evaluate(plain.with_overrides({"evaluate.first_stage": "bm52"}))
    (tmp_path / "empty").mkdir()
    overrides = {"evaluate.suite": str(tmp_path / "empty"), "evaluate.first_stage": "bm25"}
    with pytest.raises(StageError, match="holds no subfolder and no zip"):
        evaluate(plain.with_overrides(overrides))


def test_models_are_called_after_their_folders() -> None:
    assert labels_of(["a/model", "b/model", "hub/name", "c/name"]) == ["reranked", "b-model", "name", "name-4"]
    # A folder that is called like a first stage, the main system or one of its forms replaces none of them.
    models = ["a/model", "x/bm25", "x/cross-encoder", "x/reranked", "x/top@50"]
    assert labels_of(models, ["bm25"]) == ["reranked", "bm25-2", "cross-encoder-3", "reranked-4", "top-50"]
    assert pairs_of(["bm25", "x", "reranked"], "bm25", ["reranked", "x"]) == [
        ("bm25", "reranked"), ("x", "reranked"), ("bm25", "x"),
    ]  # fmt: skip


def test_an_interrupted_stage_keeps_its_runs(plain, score_here, monkeypatch) -> None:
    config = plain.with_overrides({"evaluate.depth": 3, "evaluate.max_queries": 1})

    def full_disk(*_args: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(door, "write_report", full_disk)
        with pytest.raises(OSError, match="no space"):
            evaluate(config)
    whole = config.folder("evaluate") / "report.md"
    assert not whole.exists() or "top 3" not in whole.read_text()
    monkeypatch.setattr(door, "_bm25", None)
    done = evaluate(config)
    assert done.outcome["num_queries"] == 1
    speed = json.loads((done.folder / "metrics.json").read_text())["speed"]
    assert speed["retrieval_ms_per_query"]["bm25"] > 0  # as it was measured before the interruption


def test_mistakes_are_found_before_anything_runs(plain, tmp_path) -> None:
    with pytest.raises(MeasureError, match="ndgc"):
        evaluate(plain.with_overrides({"evaluate.measures": ["ndgc@10"]}))
    with pytest.raises(StageError, match="run the stage that writes it first"):
        evaluate(plain.with_overrides({"evaluate.model": None}))
    with pytest.raises(StageError, match="run the stage that writes it first"):
        evaluate(Experiment(output_dir=str(tmp_path)))
    with pytest.raises(StageError, match="run the stage that writes it first"):
        evaluate(plain.with_overrides({"evaluate.first_stage": "retriever", "output_dir": str(tmp_path)}))
    with pytest.raises(ConfigError):
        plain.with_overrides({"evaluate.depth": 0})


def test_a_mixed_list_comes_with_the_cross_encoder_alone(ranked) -> None:
    first = ranked(q1="a b c")
    top, scores = first.slice(0, 2), np.array([1.0, 2.0])
    assert final_lists(top, scores, first, 0.0).keys() == {"reranked"}
    lists = final_lists(top, scores, first, 0.9)
    assert lists["cross-encoder"]["doc_id"].to_pylist() == ["b", "a", "c"]
    assert lists["reranked"]["doc_id"].to_pylist() == ["a", "b", "c"]
