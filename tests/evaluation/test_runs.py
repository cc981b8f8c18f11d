import ir_measures
import pyarrow.parquet as pq
import pytest
from ir_measures import nDCG

from ranker.data.formats import write_trec_qrels, write_trec_run
from ranker.evaluation import compare_files, evaluate_files
from ranker.evaluation.runs import open_qrels
from ranker.measures import order_run


@pytest.fixture
def files(tmp_path, letters, first, after):
    write_trec_run(order_run(first), tmp_path / "first.trec", "first")
    write_trec_run(order_run(after), tmp_path / "after.trec", "after")
    write_trec_qrels(letters.qrels, tmp_path / "qrels.trec")
    return tmp_path


def test_a_run_file_is_measured_as_another_tool_measures_it(files) -> None:
    ours = evaluate_files(files / "after.trec", files / "qrels.trec", ["ndcg@10", "mrr@10"])
    qrels = list(ir_measures.read_trec_qrels(str(files / "qrels.trec")))
    run = list(ir_measures.read_trec_run(str(files / "after.trec")))
    assert ours["means"]["ndcg@10"] == pytest.approx(ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10])
    assert ours["means"]["mrr@10"] == pytest.approx(2 / 3)
    assert (ours["num_queries"], ours["missing"], ours["ties"]) == (3, 0, 0)


def test_later_runs_are_tested_against_the_first(files) -> None:
    plain = compare_files([files / "first.trec", files / "after.trec"], files / "qrels.trec", "mrr@10")
    assert plain["baseline"] == "first"
    test = plain["significance"]["after"]["mrr@10"]
    assert (test["wins"], test["ties"], test["losses"], test["difference"]) == (1, 1, 1, 0.0)


def test_parquet_and_beir_files_give_the_same(files, letters, after) -> None:
    pq.write_table(after, files / "after.parquet")
    (files / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n"
        + "".join(f"{row['query_id']}\t{row['doc_id']}\t{row['relevance']}\n" for row in letters.qrels.to_pylist())
    )
    expected = evaluate_files(files / "after.trec", files / "qrels.trec")
    assert evaluate_files(files / "after.parquet", files / "test.tsv") == expected


def test_ids_of_a_beir_file_stay_text(pets) -> None:
    assert open_qrels(pets / "qrels" / "test.tsv")["doc_id"].to_pylist() == ["007", "d10"]


def test_files_of_one_name_stay_apart(files) -> None:
    plain = compare_files([files / "first.trec", files / "first.trec"], files / "qrels.trec", ["map"])
    assert len(plain["means"]) == 2


def test_mistakes_name_the_file(files) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.trec: no such run file"):
        evaluate_files(files / "gone.trec", files / "qrels.trec")
    with pytest.raises(ValueError, match="two run files or more, got 1"):
        compare_files([files / "first.trec"], files / "qrels.trec")
    (files / "bad.trec").write_text("q1 Q0 a 1 0.5\n")
    with pytest.raises(ValueError, match=r"bad\.trec"):
        evaluate_files(files / "bad.trec", files / "qrels.trec")
