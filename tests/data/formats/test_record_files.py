import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.data import files as data_files
from ranker.data.errors import DataError, Mistakes
from ranker.data.files import find_files
from ranker.data.formats import json_records, parquet_records
from ranker.data.formats.example_files import open_sentence_transformers, read_examples

Records = list[dict[str, Any]]


def jsonl(path: Path, records: Records) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".tsv", "\t")])
def test_csv_keeps_what_stands_in_quotes(suffix: str, delimiter: str, tmp_path: Path) -> None:
    path = tmp_path / f"train{suffix}"
    text = '\ufeffid|query|document|label\r\n01|who sings|"a ""big"" | canary\n\nof 2"|0.5\r\n\r\n02|2|007|1\r\n'
    path.write_bytes(text.replace("|", delimiter).encode())
    rows = read_examples(path).to_pylist()
    assert [(row["query"], row["documents"], row["labels"]) for row in rows] == [
        ("who sings", [f'a "big" {delimiter} canary\n\nof 2'], [0.5]),
        ("2", ["007"], [1.0]),
    ]
    packed = tmp_path / f"train{suffix}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_examples(packed).to_pylist() == rows


def test_lists_in_the_cells_of_a_csv_file_are_those_of_json(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(
        'query\tpos\tneg\tpos_scores\twho\nq\t"[""a"", ""b""]"\t\t[1, 0.5]\tme\nr\tc\t"[""[1]""]"\t2\tyou\n'
    )
    rows = read_examples(path).to_pylist()
    assert [(row["documents"], row["labels"], row["scores"]) for row in rows] == [
        (["a", "b"], [1, 1], [1, 0.5]),
        (["c", "[1]"], [1, 0], [2, None]),
    ]


def test_a_file_in_spans_gives_the_rows_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"query": f"q{n}", "positive": "ä" * n, "negative": "x"} for n in range(1, 40)]
    path = jsonl(tmp_path / "train.jsonl", records)
    whole = read_examples(path)
    monkeypatch.setattr(data_files, "SPAN_BYTES", path.stat().st_size // 2 + 1)
    source = open_sentence_transformers(find_files(path))
    assert len(source.examples["train"]) == 2
    assert read_examples(path) == whole and whole.num_rows == 39
    path.write_bytes(path.read_bytes() + b"{broken\n")
    with pytest.raises(DataError, match=r"train.jsonl, line 40: not JSON"):
        read_examples(path)


def test_row_groups_are_read_apart_and_rows_counted_over_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"query": f"q{n}", "positive": "a" if n != 5 else "", "n": {"not": "read"}} for n in range(6)]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "train.parquet", row_group_size=2)
    monkeypatch.setattr(parquet_records, "SPAN_BYTES", 1)
    pieces = open_sentence_transformers(find_files(tmp_path)).examples["train"]
    assert len(pieces) == 3
    mistakes = Mistakes("file")
    tables = [table for piece in pickle.loads(pickle.dumps(pieces)) for table in piece.tables(mistakes)]
    assert pa.concat_tables(tables)["query"].to_pylist() == ["q0", "q1", "q2", "q3", "q4"]
    assert len(mistakes.found) == 1
    assert mistakes.found[0].startswith(f"{tmp_path}/train.parquet, row 6: \"positive\" is ''; it must be a text")


def test_every_piece_can_be_sent_to_another_process(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", [{"query": "one", "pos": ["a"]}])
    (tmp_path / "dev.json").write_text(json.dumps([{"query": "two", "docs": ["a", "x"], "labels": [1, 0]}]))
    (tmp_path / "test.csv").write_text("a,b\nfour,a canary\n")
    passages = [{"docid": "1", "title": "", "text": "a"}]
    pq.write_table(pa.Table.from_pylist([{"query": "three", "positive_passages": passages}]), tmp_path / "eval.parquet")
    source = open_sentence_transformers(find_files(tmp_path))
    rows = {
        split: [
            row["query"]
            for piece in pickle.loads(pickle.dumps(pieces))
            for table in piece.tables(Mistakes(""))
            for row in table.to_pylist()
        ]
        for split, pieces in source.examples.items()
    }
    assert rows == {"train": ["one"], "dev": ["two"], "test": ["three", "four"]}
    assert all(piece.num_bytes > 0 for pieces in source.examples.values() for piece in pieces)


BROKEN = b"""{"query": "q", "pos": ["a"], "neg": ["x"]}
{"query": "q", "pos": ["a"
[1]
{"query": "", "pos": ["a"], "neg": ["x"]}
{"query": "q", "query": "r", "pos": ["a"]}

{"query": "q", "pos": [1], "neg": ["x"]}
{"query": "q", "pos": ["a"], "neg": ["x"], "pos_scores": [NaN], "neg_scores": [1, 2]}
{"query": "q", "neg": ["x"]}
{"query": "q", "pos": ["\\ud800"]}
{"query": "caf\xe9", "pos": ["a"]}
"""


def test_all_mistakes_of_all_files_come_at_once_with_file_line_value_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(BROKEN)
    (tmp_path / "dev.csv").write_text('query,positive,negative\nq,a,\nq,a\nq,"a"b,x\nq,a,x\n')
    with pytest.raises(DataError) as error:
        read_examples(tmp_path)
    message = str(error.value)
    assert "13 mistakes" in message and "and 3 more" in message
    for part in (
        "train.jsonl, line 2: not JSON (Expecting ',' delimiter, column 27): ",
        "train.jsonl, line 3: holds [1]; write one object a line",
        "train.jsonl, line 4: \"query\" is ''; it must be a text",
        "train.jsonl, line 5: names the field 'query' twice",
        'train.jsonl, line 7: "pos"[0] is 1; it must be a text',
        'train.jsonl, line 8: "pos_scores"[0] is nan; it must be a finite number',
        'train.jsonl, line 8: "neg_scores" holds 2 numbers for 1 documents; give each',
        "train.jsonl, line 9: \"pos\" is missing among ['query', 'neg']",
        "train.jsonl, line 10: \"pos\"[0] holds '\\ud800', half of a character",
        "train.jsonl, line 11: not UTF-8 at byte 14",
    ):
        assert part in message, part
    with pytest.raises(DataError) as error:
        read_examples(tmp_path, split="dev")
    for part in (
        "3 mistakes",
        'dev.csv, line 2: "negative" is None',
        "dev.csv, line 3: 2 fields under a header of 3: ['q', 'a']; put quotes around",
        "dev.csv, line 4: not CSV (",
    ):
        assert part in str(error.value), part


def test_what_cannot_be_decoded_is_replaced_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(b'{"query": "caf\xe9 \\ud800", "pos": ["\\ud83d\\ude00"]}\n')
    row = read_examples(tmp_path, on_invalid="replace").to_pylist()[0]
    assert (row["query"], row["documents"]) == ("caf\ufffd \ufffd", ["\U0001f600"])
    (tmp_path / "train.jsonl").write_bytes(b'{"query": "caf\xe9", "pos": ["a"]}\n')
    assert read_examples(tmp_path, encoding="latin-1")["query"].to_pylist() == ["café"]


def test_broken_arrays_and_parquet_say_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = tmp_path / "train.json"
    array.write_text('[{"query": "q", "pos": ["a"]},\n 3,\n {"query": "q"}]')
    with pytest.raises(DataError) as error:
        read_examples(array)
    assert "train.json, record 2: holds 3;" in str(error.value)
    assert 'train.json, record 3: "pos" is missing' in str(error.value)
    array.write_text('[{"query": "q", "pos": ["a"]},\n oops]')
    with pytest.raises(DataError, match=r"train.json: not JSON \(Expecting value, line 2, column 2\)"):
        read_examples(array)
    monkeypatch.setattr(json_records, "ARRAY_BYTES", 10)
    with pytest.raises(DataError, match=r"one JSON array of more than .*jq -c '\.\[\]'"):
        read_examples(array)
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"train.parquet: not a readable Parquet file .*copy it again"):
        read_examples(tmp_path / "train.parquet")


def test_a_parquet_text_that_is_no_utf8_is_named_by_its_row(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"caf\xe9", b"c"]).view(pa.string())
    pq.write_table(pa.table({"query": ["q", "r", "s"], "positive": texts}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"1 mistake\n.*train.parquet, row 2: holds a text that is not UTF-8"):
        read_examples(tmp_path)


def test_a_first_record_larger_than_the_head_is_still_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "_HEADS", (64, 4096))
    path = jsonl(tmp_path / "train.jsonl", [{"query": "q", "pos": ["a" * 500]}])
    assert read_examples(path)["documents"].to_pylist() == [["a" * 500]]


def test_a_list_as_pandas_writes_it_is_refused_and_one_in_json_is_read_in_any_column(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("query,pos,neg\nq,[1] sings,\"['owls', 'dogs']\"\n")
    with pytest.raises(DataError, match=r"line 2: \"neg\" is .*, which is no list in JSON; write lists as"):
        read_examples(path)
    path.write_text('query,positive,negative\nq,[1] sings,"[""owls"", ""dogs""]"\n')
    assert read_examples(path)["documents"].to_pylist() == [["[1] sings", "owls", "dogs"]]


def test_queries_in_csv_may_be_years(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("query,positive\n2019,007\n1984,1e5\n")
    assert read_examples(path).select(["query", "documents"]).to_pylist() == [
        {"query": "2019", "documents": ["007"]},
        {"query": "1984", "documents": ["1e5"]},
    ]


def test_ndjson_is_jsonl_and_what_is_no_record_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jsonl(tmp_path / "train.ndjson", [{"query": "q", "pos": ["p"]}])
    (tmp_path / "more.txt").write_text("q\tp\n")
    (tmp_path / "README.md").write_text("what it is")
    assert read_examples(tmp_path)["documents"].to_pylist() == [["p"]]
    assert "more.txt: is no part of training examples" in caplog.text and "README" not in caplog.text
    (tmp_path / "dev.jsonl.xz").write_bytes(b"\xfd7zXZ\x00")
    with pytest.raises(DataError, match=r"dev\.jsonl\.xz: is packed with xz; unpack it"):
        read_examples(tmp_path)
