import gzip
import json
import zipfile
from pathlib import Path

import pytest

from ranker.data.errors import DataError
from ranker.data.formats.beir import read_beir, write_beir

HEADER = "query-id\tcorpus-id\tscore\n"


def folder(tmp_path: Path, corpus: str, queries: str, qrels: str) -> Path:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_bytes(corpus.encode())
    (tmp_path / "queries.jsonl").write_bytes(queries.encode())
    (tmp_path / "qrels" / "test.tsv").write_bytes(qrels.encode())
    return tmp_path


DOCUMENT = '{"_id": "007", "title": "Canaries", "text": "sing"}\n'
QUERY = '{"_id": "01", "text": "who sings"}\n'


def test_ids_stay_strings_and_every_split_is_found(pets: Path) -> None:
    data = read_beir(pets)
    assert sorted(data.qrels) == ["dev", "test", "train"]
    assert "007" in data.corpus.table()["doc_id"].to_pylist()
    test = data.collection("test")
    assert test.queries["query_id"].to_pylist() == ["q9", "q10"]
    assert test.qrels.to_pylist()[0] == {"query_id": "q9", "doc_id": "007", "relevance": 2}
    assert test.corpus.num_rows == test.documents.num_rows == 10


def test_a_zip_with_one_folder_and_gzipped_files_read_the_same(pets: Path, tmp_path: Path) -> None:
    archive = tmp_path / "pets.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for file in pets.rglob("*.*"):
            inside = f"pets/{file.relative_to(pets)}"
            if file.name == "corpus.jsonl":
                target.writestr(f"{inside}.gz", gzip.compress(file.read_bytes()))
            else:
                target.write(file, inside)
    zipped, plain = read_beir(archive), read_beir(pets)
    assert zipped.name == plain.name == "pets"
    assert zipped.corpus.table() == plain.corpus.table() and zipped.queries == plain.queries
    assert {split: table.to_pylist() for split, table in zipped.qrels.items()} == {
        split: table.to_pylist() for split, table in plain.qrels.items()
    }


def test_what_is_written_reads_back(pets: Path, tmp_path: Path) -> None:
    data = read_beir(pets)
    write_beir(tmp_path / "copy", data)
    again = read_beir(tmp_path / "copy")
    assert again.corpus.table() == data.corpus.table() and again.queries == data.queries
    assert again.qrels["test"] == data.qrels["test"]


def test_byte_order_mark_and_crlf_and_blank_lines_are_tolerated(tmp_path: Path) -> None:
    place = folder(
        tmp_path, "\ufeff" + DOCUMENT.replace("\n", "\r\n") + "\r\n", "\ufeff" + QUERY, HEADER + "01\t007\t1\r\n"
    )
    data = read_beir(place)
    assert data.corpus.table()["doc_id"].to_pylist() == ["007"]
    assert data.qrels["test"].to_pylist() == [{"query_id": "01", "doc_id": "007", "relevance": 1}]


def test_all_mistakes_of_all_files_come_at_once_with_file_line_value_and_remedy(tmp_path: Path) -> None:
    place = folder(
        tmp_path,
        DOCUMENT + "{broken\n" + DOCUMENT + '{"_id": "8"}\n[1]\n',
        QUERY + '{"_id": true, "text": "x"}\n{"_id": "02", "text": "  "}\n',
        HEADER + "01\t007\n01\t007\tmany\n01\t007\t1\n01\t007\t2\n",
    )
    with pytest.raises(DataError) as error:
        read_beir(place)
    message = str(error.value)
    assert "9 mistakes" in message
    for part in (
        "corpus.jsonl, line 2: not JSON",
        "'007' was already used at",
        'corpus.jsonl, line 4: "text" is missing',
        "corpus.jsonl, line 5: holds [1]",
        "queries.jsonl, line 2: _id is True",
        "queries.jsonl, line 3:",
        "test.tsv, line 2: 2 fields",
        "test.tsv, line 3: score 'many' is no whole number; write 1",
        "has score 2 here and 1 at",
    ):
        assert part in message, part


def test_ten_mistakes_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    place = folder(tmp_path, DOCUMENT + "x\n" * 25, QUERY, HEADER + "01\t007\t1\n")
    with pytest.raises(DataError, match="25 mistakes") as error:
        read_beir(place)
    assert str(error.value).count("not JSON") == 10
    assert "and 15 more" in str(error.value)


def test_bytes_that_are_no_utf8_name_their_line(tmp_path: Path) -> None:
    place = folder(tmp_path, DOCUMENT, QUERY, HEADER + "01\t007\t1\n")
    (place / "corpus.jsonl").write_bytes(DOCUMENT.encode() + b'{"_id": "2", "text": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"corpus.jsonl, line 2: not UTF-8 at byte 25"):
        read_beir(place)


def test_judgements_of_missing_documents_are_counted_and_named_and_may_stay(tmp_path: Path) -> None:
    place = folder(tmp_path, DOCUMENT, QUERY, HEADER + "01\t007\t1\n01\t7\t1\n01\t8\t1\n99\t007\t1\n")
    with pytest.raises(DataError) as error:
        read_beir(place)
    assert "2 judged doc_ids are not in corpus.jsonl: '7', '8'" in str(error.value)
    assert "1 judged query_ids are not in queries.jsonl: '99'" in str(error.value)
    assert "--allow-missing" in str(error.value)
    assert read_beir(place, allow_missing=True).qrels["test"].num_rows == 3


@pytest.mark.parametrize(
    ("lost", "said"),
    [("corpus.jsonl", "no corpus.jsonl among"), ("queries.jsonl", "no queries.jsonl"), ("qrels/test.tsv", "no qrels")],
)
def test_a_missing_file_is_named_with_the_layout(tmp_path: Path, lost: str, said: str) -> None:
    place = folder(tmp_path, DOCUMENT, QUERY, HEADER + "01\t007\t1\n")
    (place / lost).unlink()
    with pytest.raises(DataError, match=said) as error:
        read_beir(place)
    assert "BEIR data set holds corpus.jsonl" in str(error.value)


def test_a_truncated_gzip_says_where_it_ends(tmp_path: Path) -> None:
    place = folder(tmp_path, DOCUMENT, QUERY, HEADER + "01\t007\t1\n")
    (place / "corpus.jsonl").unlink()
    lines = "".join(json.dumps({"_id": str(n), "text": f"text {n * 7919}"}) + "\n" for n in range(2000))
    (place / "corpus.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-2000])
    with pytest.raises(DataError, match=r"corpus.jsonl.gz, after line \d+: cannot be read further"):
        read_beir(place)


def test_a_sample_keeps_every_judged_document(pets: Path) -> None:
    small = read_beir(pets, max_documents=4, max_queries=1, seed=3)
    judged = {row["doc_id"] for table in small.qrels.values() for row in table.to_pylist()}
    assert [table.num_rows for table in small.qrels.values()] == [1, 1, 1]
    assert small.corpus.num_rows == 4 and judged < set(small.corpus.table()["doc_id"].to_pylist())
    assert read_beir(pets, max_documents=4, max_queries=1, seed=3).corpus.table() == small.corpus.table()


def test_bytes_that_are_utf8_too_are_read_in_the_encoding_that_was_said(tmp_path: Path) -> None:
    document = '{"_id": "007", "title": "", "text": "Ã© sings"}\n'
    folder(tmp_path, "", QUERY, f"{HEADER}01\t007\t1\n")
    (tmp_path / "corpus.jsonl").write_bytes(document.encode("latin-1"))
    assert read_beir(tmp_path, encoding="latin-1").corpus.table()["text"].to_pylist() == ["Ã© sings"]
    assert read_beir(tmp_path).corpus.table()["text"].to_pylist() == ["é sings"]


def test_a_field_that_stands_twice_and_a_number_that_is_too_long_are_mistakes(tmp_path: Path) -> None:
    twice, long = '{"_id": "1", "text": "a", "text": "b"}\n', f'{{"_id": {"9" * 5000}, "text": "a"}}\n'
    folder(tmp_path, DOCUMENT + twice + long, QUERY + twice, f"{HEADER}01\t007\t1\n")
    with pytest.raises(DataError) as error:
        read_beir(tmp_path)
    message = str(error.value)
    assert "3 mistakes" in message and "corpus.jsonl, line 2: names the field 'text' twice" in message
    assert "corpus.jsonl, line 3: not JSON that can be read" in message
    assert "queries.jsonl, line 2: names the field 'text' twice" in message
