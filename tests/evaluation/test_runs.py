import gzip

import ir_measures
import pyarrow.parquet as pq
import pytest
from ir_measures import nDCG

from ranker.cli.measuring import tie_lines
from ranker.data.formats import write_trec_qrels, write_trec_run
from ranker.evaluation import compare_files, evaluate_files
from ranker.evaluation.again import file_name
from ranker.evaluation.runs import open_qrels
from ranker.measures import MeasureError, order_run


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
    counts = ours["counts"]
    assert (ours["num_queries"], counts["missing_queries"], counts["tied_documents"]) == (3, 0, 0)


def test_no_two_systems_share_a_file() -> None:
    names = ["modèle_a@50", "modèle a@50", "modèle%20a@50", "../modèle", "a\udcffb"]
    files = [file_name(name) for name in names]
    assert files[0] == names[0] and len(set(files)) == len(names)
    assert not any("/" in file or " " in file for file in files) and "".join(files).encode()


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


def test_published_forms_are_read(files, letters, after) -> None:
    expected = evaluate_files(files / "after.trec", files / "qrels.trec")["means"]
    lines = (files / "after.trec").read_text().splitlines()
    (files / "tabs.run").write_text("".join("\t".join(line.split()) + "\r\n" for line in lines))
    with gzip.open(files / "packed.trec.gz", "wt") as stream:
        stream.writelines(f"  {line.replace(' ', '   ')} \n\n" for line in lines)
    # MS MARCO's own form of runs, and of judgements: .tsv, but the four fields of TREC.
    rows = [line.split() for line in lines]
    (files / "marco.tsv").write_text("".join(f"{row[0]}\t{row[2]}\t{row[3]}\n" for row in rows))
    judged = (files / "qrels.trec").read_text().splitlines()
    (files / "qrels.dev.tsv").write_text("".join("\t".join(line.split()) + "\n" for line in judged))
    for name in ("tabs.run", "packed.trec.gz", "marco.tsv"):
        assert evaluate_files(files / name, files / "qrels.dev.tsv")["means"] == expected, name
    assert evaluate_files(files / "packed.trec.gz", files / "qrels.trec")["run"] == "packed"


def test_a_file_with_ties_is_measured_as_trec_eval_does_and_the_reach_of_the_ties_is_said(tmp_path) -> None:
    (tmp_path / "tied.trec").write_text("q1 Q0 a 1 1.0 x\nq1 Q0 b 2 1.0 x\nq2 Q0 c 1 2.0 x\n")
    (tmp_path / "qrels.trec").write_text("q1 0 a 1\nq2 0 c 1\nq3 0 d 1\n")
    found = evaluate_files(tmp_path / "tied.trec", tmp_path / "qrels.trec", ["map", "hit_rate@10"], per_query=True)
    assert found["means"] == {"map": pytest.approx((0.5 + 1 + 0) / 3), "hit_rate@10": pytest.approx(2 / 3)}
    assert found["tie_range"] == {"map": [pytest.approx(1.5 / 3), pytest.approx(2 / 3)]}
    assert (found["counts"]["tied_documents"], found["counts"]["missing_queries"]) == (2, 1)
    assert found["per_query"]["q1"]["map"] == 0.5
    by_rank = evaluate_files(tmp_path / "tied.trec", tmp_path / "qrels.trec", ["map"], ties="rank")
    assert by_rank["means"]["map"] == pytest.approx(2 / 3)


def test_a_comparison_says_the_reach_of_the_ties_of_each_run(tmp_path) -> None:
    (tmp_path / "tied.trec").write_text("q1 Q0 a 1 1.0 x\nq1 Q0 b 2 1.0 x\n")
    (tmp_path / "clear.trec").write_text("q1 Q0 a 1 2.0 x\nq1 Q0 b 2 1.0 x\n")
    (tmp_path / "qrels.trec").write_text("q1 0 a 1\n")
    plain = compare_files([tmp_path / "tied.trec", tmp_path / "clear.trec"], tmp_path / "qrels.trec", ["map"])
    assert plain["tie_range"] == {"tied": {"map": [0.5, 1.0]}}
    assert tie_lines(plain["tie_range"]) == ["tied: with its equal scores in another order, map from 0.5000 to 1.0000"]
    plain = compare_files([tmp_path / "clear.trec", tmp_path / "clear.trec"], tmp_path / "qrels.trec", ["map"])
    assert "tie_range" not in plain


def test_the_most_changed_queries_are_told_with_the_documents_that_moved(files) -> None:
    plain = compare_files([files / "first.trec", files / "after.trec"], files / "qrels.trec", "mrr@10")
    better, worse = plain["changed"]["after"]["better"], plain["changed"]["after"]["worse"]
    assert [(c["query_id"], c["before"], c["after"]) for c in better] == [("q1", 0.5, 1.0)]
    assert [c["query_id"] for c in worse] == ["q2"]
    assert better[0]["documents"][0] == {"doc_id": "a", "relevance": 1, "before": 2, "after": 1}
    assert better[0]["documents"][1]["relevance"] is None  # never judged, which is not the same as 0


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
    (files / "bad.trec").write_text("q1 Q0 a 1 0.5\nq1 Q0 b 2 x tag\n")
    with pytest.raises(ValueError, match=r"bad\.trec, line 1: 5 fields.*\n.*line 2: rank '2' or score 'x'"):
        evaluate_files(files / "bad.trec", files / "qrels.trec")
    (files / "empty.trec").write_text("")
    with pytest.raises(ValueError, match=r"empty\.trec: holds no line"):
        evaluate_files(files / "empty.trec", files / "qrels.trec")
    with pytest.raises(ValueError, match=r"empty\.trec: holds no judgement"):
        evaluate_files(files / "first.trec", files / "empty.trec")
    (files / "others.trec").write_text("301 Q0 FT911-1 1 0.5 tag\n")
    with pytest.raises(ValueError, match="none of its 1 queries is judged; its ids are like '301'"):
        compare_files([files / "first.trec", files / "others.trec"], files / "qrels.trec")
    with pytest.raises(MeasureError, match="ndgc"):  # before a file is opened
        evaluate_files(files / "gone.trec", files / "gone.trec", ["ndgc@10"])
    (files / "twice.tsv").write_text("q1\ta\t1\nq1\tb\t2\nq1\ta\t3\n")
    with pytest.raises(ValueError, match="document 'a' stands twice in the list of query 'q1'"):
        evaluate_files(files / "twice.tsv", files / "qrels.trec")
