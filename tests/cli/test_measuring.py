import json
from pathlib import Path

import ir_measures
import pytest
from typer.testing import CliRunner

from ranker.cli import app

runner = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    orders = {"bm25": "x y z a", "small": "x a y z", "large": "a x y z"}
    for name, documents in orders.items():
        Path(f"{name}.trec").write_text(
            "".join(
                f"q{query} Q0 {document} {rank} {9 - rank}.0 {name}\n"
                for query in range(12) for rank, document in enumerate(documents.split(), 1)
            )
        )  # fmt: skip
    Path("qrels.trec").write_text("".join(f"q{query} 0 a {1 + query % 2}\nq{query} 0 x 0\n" for query in range(12)))
    return tmp_path


def ran(*arguments: str) -> dict:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert result.exit_code == 1 and not result.stdout, result.output
    return result.stderr


def test_a_run_is_measured_as_ir_measures_measures_it(folder: Path) -> None:
    found = ran(
        "evaluate", "small.trec", "qrels.trec", "--measure", "mrr@10", "--measure", "ndcg@10", "--measure", "judged@10",
        "--relevance-level", "2", "--per-query",
    )  # fmt: skip
    qrels, run = (list(read(str(folder / name))) for read, name in (
        (ir_measures.read_trec_qrels, "qrels.trec"), (ir_measures.read_trec_run, "small.trec"),
    ))  # fmt: skip
    named = {"mrr@10": "RR(rel=2)@10", "ndcg@10": "nDCG@10", "judged@10": "Judged@10"}
    for ours, theirs in named.items():
        measure = ir_measures.parse_measure(theirs)
        assert found["means"][ours] == pytest.approx(ir_measures.calc_aggregate([measure], qrels, run)[measure])
    assert found["means"]["mrr@10"] == 0.25 and found["means"]["judged@10"] == 0.5  # half of them have a grade of 2
    assert found["per_query"]["q1"]["mrr@10"] == 0.5
    assert found["counts"]["queries_without_relevant"] == 6 and found["counts"]["unjudged_documents"] == 24


def test_several_runs_are_compared_and_told_on_a_page(folder: Path) -> None:
    command = ["compare", "bm25.trec", "small.trec", "large.trec", "--qrels", "qrels.trec", "--measure", "mrr@10"]
    found = ran(*command, "--all-pairs", "--correction", "bonferroni", "--report", "out")
    assert found["means"] == {"bm25": {"mrr@10": 0.25}, "small": {"mrr@10": 0.5}, "large": {"mrr@10": 1.0}}
    pairs = [(test["against"], test["system"]) for test in found["tests"]]
    assert pairs == [("bm25", "small"), ("bm25", "large"), ("small", "large")]
    for test in found["tests"]:
        assert (test["wins"], test["losses"]) == (12, 0)
        assert test["p_corrected"] == pytest.approx(min(1, 3 * test["p_randomisation"])) and test["p_corrected"] < 0.05
    moved = found["changed"]["large"]["better"][0]
    assert moved["query_id"] == "q0" and moved["documents"][0] == {
        "doc_id": "a", "relevance": 1, "before": 4, "after": 1,
    }  # fmt: skip
    page, text = Path("out/report.html").read_text(), Path("out/report.md").read_text()
    assert "<sup>a b</sup>" in page and "| **1.0000** a b |" in text
    assert "ranker compare bm25.trec small.trec large.trec --qrels qrels.trec --measure mrr@10 --all-pairs" in text
    assert json.loads(Path("out/comparison.json").read_text())["means"] == found["means"]


def test_against_one_baseline_the_answer_is_keyed_by_run(folder: Path) -> None:
    found = ran("compare", "bm25.trec", "large.trec", "--qrels", "qrels.trec", "--measure", "mrr@10", "--changed", "0")
    assert found["baseline"] == "bm25" and found["significance"]["large"]["mrr@10"]["difference"] == 0.75
    assert found["changed"] == {}
    turned = ran("compare", "bm25.trec", "large.trec", "--qrels", "qrels.trec", "--baseline", "large")
    assert turned["significance"]["bm25"]["ndcg@10"]["losses"] == 12


def test_texts_of_a_collection_stand_on_the_page(folder: Path, pets: Path) -> None:
    for name, documents in (("one", ("d10", "007")), ("two", ("007", "d10"))):
        Path(f"{name}.trec").write_text("".join(f"q9 Q0 {d} {n} {-n} x\n" for n, d in enumerate(documents)))
    judged = str(pets / "qrels" / "test.tsv")
    ran("compare", "one.trec", "two.trec", "--qrels", judged, "--report", "out", "--texts", str(pets))
    queries = [json.loads(line) for line in (pets / "queries.jsonl").read_text().splitlines()]
    query = next(row["text"] for row in queries if row["_id"] == "q9")
    assert query in Path("out/report.md").read_text()


def test_bad_input_is_one_message_that_says_what_would_do(folder: Path) -> None:
    assert "give its judgements behind it" in refused("evaluate", "bm25.trec")
    assert "no such run file" in refused("evaluate", "gone.trec", "qrels.trec")
    assert "did you mean 'ndcg'" in refused("evaluate", "bm25.trec", "qrels.trec", "--measure", "ndgc@10")
    assert "is not one of score, rank" in refused("evaluate", "bm25.trec", "qrels.trec", "--ties", "id")
    assert "belongs to an experiment file" in refused("evaluate", "bm25.trec", "qrels.trec", "--set", "a=1")
    assert "two run files or more, got 1" in refused("compare", "bm25.trec", "--qrels", "qrels.trec")
    assert "'fdr' is not one of holm, bonferroni, none" in refused(
        "compare", "bm25.trec", "small.trec", "--qrels", "qrels.trec", "--correction", "fdr"
    )
    assert "baseline 'gone' is none of the runs" in refused(
        "compare", "bm25.trec", "small.trec", "--qrels", "qrels.trec", "--baseline", "gone"
    )
    Path("others.trec").write_text("301 Q0 FT1 1 1.0 x\n")
    assert "none of its 1 queries is judged" in refused("compare", "bm25.trec", "others.trec", "--qrels", "qrels.trec")
    Path("broken.trec").write_text("q0 Q0 a 1 1.0 x\nq0 Q0 a 2 0.5 x\nq1 Q0 b one 1.0 x\n")
    message = refused("compare", "bm25.trec", "broken.trec", "--qrels", "qrels.trec", "--report", "out")
    assert "broken.trec, line 3: rank 'one'" in message and "stands twice" in message
    assert not Path("out").exists()
