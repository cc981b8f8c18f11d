import gzip
from pathlib import Path

import ir_measures
import pyarrow as pa
import pytest

from ranker.data.errors import DataError
from ranker.data.formats.trec import read_trec_qrels, read_trec_run, split_of, write_trec_qrels, write_trec_run
from ranker.schemas import QRELS, RUN

RUN_TABLE = pa.table([["01", "01", "2"], ["007", "7", "7"], [0.1 + 0.2, 1e-9, -3.0], [1, 2, 1]], schema=RUN)
QRELS_TABLE = pa.table([["01", "2"], ["007", "7"], [2, 0]], schema=QRELS)


def test_a_run_reads_back_digit_for_digit_and_ir_measures_agrees(tmp_path: Path) -> None:
    file = tmp_path / "bm25.trec"
    write_trec_run(RUN_TABLE, file, "bm25")
    assert file.read_text().splitlines()[0] == "01 Q0 007 1 0.30000000000000004 bm25"
    assert read_trec_run(file) == RUN_TABLE
    oracle = list(ir_measures.read_trec_run(str(file)))
    assert [(r.query_id, r.doc_id, r.score) for r in oracle] == [
        (r["query_id"], r["doc_id"], r["score"]) for r in RUN_TABLE.to_pylist()
    ]


def test_judgements_read_back(tmp_path: Path) -> None:
    write_trec_qrels(QRELS_TABLE, tmp_path / "qrels.trec")
    assert read_trec_qrels(tmp_path / "qrels.trec") == QRELS_TABLE
    assert [q.relevance for q in ir_measures.read_trec_qrels(str(tmp_path / "qrels.trec"))] == [2, 0]


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.trec"
    file.write_text("q Q0 d 1 0.5 tag\nq Q0 d\nq Q0 e one 0.5 tag\nq Q0 d 2 0.4 tag\nq Q0 f 3 nan tag\n")
    with pytest.raises(DataError) as error:
        read_trec_run(file)
    for part in (
        "4 mistakes",
        "line 2: 3 fields",
        "line 3: rank 'one'",
        f"line 4: document 'd' stands twice in the list of query 'q', first at {file}, line 1",
        "line 5: rank '3' or score 'nan' is no number",
    ):
        assert part in str(error.value)


def test_judgements_may_be_negative_and_stand_twice_but_not_contradict_each_other(tmp_path: Path) -> None:
    file = tmp_path / "qrels.gz"
    file.write_bytes(gzip.compress(b"1\t0\tFT911-3  -1\r\n1 0 FT911-3 -1\n1 0 b 3\n2 0 b 0\n"))
    assert read_trec_qrels(file) == pa.table([["1", "1", "2"], ["FT911-3", "b", "b"], [-1, 3, 0]], schema=QRELS)
    file.write_bytes(gzip.compress(b"1 0 b 3\n2 0 b 0\n1 0 b 3\n1 0 b 1\n1 0 b\n1 0 c 0.5\n1 0 d 4294967296\n"))
    with pytest.raises(DataError) as error:
        read_trec_qrels(file)
    for part in (
        "4 mistakes",
        "line 4: ('1', 'b') has relevance 1 here and 3 at " + f"{file}, line 1; keep one",
        "line 5: 3 fields in '1 0 b'; write qid 0 docid relevance",
        "line 6: relevance '0.5' is no whole number",
        "line 7: relevance '4294967296'",
    ):
        assert part in str(error.value)


def test_an_id_with_a_blank_cannot_be_written(tmp_path: Path) -> None:
    run = pa.table([["my query"], ["d"], [1.0], [1]], schema=RUN)
    with pytest.raises(DataError, match="'my query'"):
        write_trec_run(run, tmp_path / "run.trec", "tag")
    assert not (tmp_path / "run.trec").exists()


def test_an_empty_file_is_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "run.trec").write_text("")
    assert read_trec_run(tmp_path / "run.trec") == RUN.empty_table()
    assert read_trec_qrels(tmp_path / "run.trec") == QRELS.empty_table()


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("qrels.train.txt", "train"),
        ("train.qrels", "train"),
        ("qrels-dev.txt.gz", "dev"),
        ("qrels/validation.txt", "dev"),
        ("training/qrels.txt", "train"),
        ("training/qrels.test", "test"),
        ("qrels.robust2004.txt", "test"),
        ("devices.qrels", "test"),
    ],
)
def test_the_split_is_in_the_name(name: str, split: str) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize("relevance", ["1_0", "٣", "0.5", "nan"])
def test_what_only_python_takes_for_a_whole_number_is_none(relevance: str, tmp_path: Path) -> None:
    path = tmp_path / "qrels.txt"
    path.write_text(f"1 0 d1 {relevance}\n", "utf-8")
    with pytest.raises(DataError, match=f"line 1: relevance '{relevance}' is no whole number"):
        read_trec_qrels(path)
