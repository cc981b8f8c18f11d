from pathlib import Path

import pytest

from ranker.data.errors import DataError
from ranker.data.formats import read_trec_qrels, read_trec_run
from ranker.data.formats import trec as lines
from ranker.data.formats.trec_blocks import parse_judgement_block, parse_ranking_block, parse_run_block

RUNS = {
    "plain": "q1 Q0 007 1 2.5 tag\nq1 Q0 1e5 2 -1e-3 tag\n",
    "tabs": "q1\tQ0\td1\t1\t2.5\ttag\nq2\tQ0\td2\t1\t2\ttag\n",
    "indented, ragged, blank lines": "  q1 Q0   d1 1\t 2.5 tag \n\n \nq2 Q0 d2 0 inf tag",
    "carriage returns": "q1 Q0 d1 1 2.5 tag\r\nq1 Q0 d2 2 1.5 tag\r\n",
    "quotes and commas": 'q"1 Q0 d,1 1 2.5 tag\nq"1 Q0 "d2" 2 1.5 tag\n',
    "whole ranks as fractions": "q1 Q0 d1 1.0 2.5 tag\n",
    "letters beyond ascii": "q1 Q0 dé 1 2.5 tag\n",
    "ids that look like nothing": "nan Q0 NA 1 2.5 null\n",
}


@pytest.mark.parametrize("form", RUNS)
def test_a_block_is_what_its_lines_are(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").write_text(RUNS[form], newline="")
    fast = read_trec_run(tmp_path / "run")
    monkeypatch.setattr(lines, "parse_run_block", lambda block: None)
    assert fast.equals(read_trec_run(tmp_path / "run")) and fast.num_rows


def test_most_published_forms_are_read_as_blocks() -> None:
    slow = {form for form, text in RUNS.items() if parse_run_block(text.encode()) is None}
    assert slow == {"whole ranks as fractions", "letters beyond ascii"}
    assert parse_judgement_block(b"q1 0 d1 2\nq1\t0\td2\t-1\n")["relevance"].to_pylist() == [2, -1]
    assert parse_ranking_block(b"q1\td1\t1\nq1\td2\t2\n")["score"].to_pylist() == [-1.0, -2.0]


@pytest.mark.parametrize(
    "wrong", ["q1 Q0 d1 1 2.5", "q1 Q0 d1 one 2.5 tag", "q1 Q0 d1 1 nan tag", "q1 Q0 d1 1 2.5 a tag"]
)
def test_a_wrong_line_among_millions_is_named(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("".join(f"q1 Q0 d{n} {n} {-n} tag\n" for n in range(5)) + wrong + "\n")
    assert parse_run_block((tmp_path / "run").read_bytes()) is None
    with pytest.raises(DataError, match="line 6"):
        read_trec_run(tmp_path / "run")


def test_judgements_too(tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("q1 0 d1 1\nq1 0 d1 1\nq1 0 d2 2\n")
    assert read_trec_qrels(tmp_path / "qrels")["doc_id"].to_pylist() == ["d1", "d2"]
    (tmp_path / "qrels").write_text("q1 0 d1 1\nq1 0 d1 2\n")
    with pytest.raises(DataError, match=r"line 2: .*relevance 2 here and 1 at .*line 1"):
        read_trec_qrels(tmp_path / "qrels")
