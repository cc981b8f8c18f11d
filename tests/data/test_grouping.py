from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ranker.data import DataPreprocessor
from ranker.data import grouping as module
from ranker.data import spread as spread_module
from ranker.data.errors import DataError
from ranker.data.grouping import LABELLED, Finish, group_texts, read_groups
from ranker.data.parts import write_table
from ranker.schemas import CORPUS, EXAMPLES, QRELS, QUERIES, RUN, Collection, StoredCorpus, TableCorpus

QUERY_TABLE = pa.table([["q1", "q2", "q3"], ["one", "two", "three"]], schema=QUERIES)
CORPUS_TABLE = pa.table([["a", "b", "c", "d"], ["T", "", "", ""], ["ay", "bee", "see", "bee"]], schema=CORPUS)


def labelled(*rows: tuple[str, str, float, float | None]) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=LABELLED)


def test_texts_come_to_their_ids_in_the_order_of_the_labels(tmp_path: Path) -> None:
    rows = labelled(
        ("q2", "c", 2, None), ("q2", "gone", 1, None), ("q2", "a", 0, None),
        ("q1", "a", 1, 0.5), ("q1", "b", 0, None), ("q1", "d", 0, 0.25), ("q3", "gone", 1, None),
    )  # fmt: skip
    (part,) = group_texts(rows, QUERY_TABLE, TableCorpus(CORPUS_TABLE), tmp_path)
    groups = read_groups([part])
    assert groups.schema == EXAMPLES
    assert groups.to_pylist() == [
        {"query_id": "q2", "query": "two", "documents": ["see", "T ay"], "labels": [2, 0], "doc_ids": ["c", "a"],
         "scores": None},
        {"query_id": "q1", "query": "one", "documents": ["T ay", "bee", "bee"], "labels": [1, 0, 0],
         "doc_ids": ["a", "b", "d"], "scores": [0.5, None, 0.25]},
    ]  # fmt: skip
    assert [file.name for file in tmp_path.glob("[!.]*")] == ["part-00000.parquet"]


def test_copies_spare_negatives_and_one_sided_groups_are_dropped_when_asked(tmp_path: Path) -> None:
    rows = labelled(
        ("q1", "a", 1, None), ("q1", "b", 0, None), ("q1", "d", 0, None), ("q1", "c", 0, None),
        ("q2", "b", 1, None), ("q2", "d", 0, None), ("q3", "c", 0, None),
    )  # fmt: skip
    finish = Finish(drop_copies=True, negatives_a_positive=2, both_sides=True)
    found = read_groups(group_texts(rows, QUERY_TABLE, TableCorpus(CORPUS_TABLE), tmp_path, finish)).to_pylist()
    assert [(row["query_id"], row["doc_ids"]) for row in found] == [("q1", ["a", "b", "c"])]


def made(folder: Path, size: int, parts: int) -> StoredCorpus:
    folder.mkdir()
    for number, rows in enumerate(np.array_split(np.arange(size), parts)):
        ids = [f"d{row}" for row in rows]
        write_table(
            pa.table([ids, [""] * len(ids), [f"text of {row}" for row in rows]], schema=CORPUS),
            folder / f"part-{number:05d}.parquet",
        )
    return StoredCorpus(folder)


@pytest.mark.parametrize(("parts", "bucket", "flush"), [(1, 10**6, 10**9), (7, 13, 500), (30, 1, 1)])
def test_any_number_of_parts_and_buckets_gives_the_join_that_pandas_makes(
    parts: int, bucket: int, flush: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUCKET_ROWS", bucket)
    monkeypatch.setattr(module, "FLUSH_BYTES", flush)
    rng = np.random.default_rng(1)
    rows = [(f"q{q}", f"d{d}", float(d == 0), None) for q in range(60) for d in rng.integers(0, 320, size=4)]
    queries = pa.table([[f"q{n}" for n in range(60)], [f"question {n}" for n in range(60)]], schema=QUERIES)
    corpus = made(tmp_path / "corpus", 300, parts)
    found = read_groups(group_texts(labelled(*rows), queries, corpus, tmp_path / "out")).to_pandas()
    flat = found.explode(["documents", "labels", "doc_ids"])
    frame = labelled(*rows).to_pandas().merge(corpus.table().to_pandas(), on="doc_id", how="inner")
    order = {(q, d): place for place, (q, d, _, _) in enumerate(rows)}
    frame = frame.assign(place=[order[pair] for pair in zip(frame.query_id, frame.doc_id, strict=True)])
    expected = frame.sort_values("place", kind="stable")
    assert len(flat) == len(expected)
    assert sorted(zip(flat.query_id, flat.doc_ids, flat.documents, strict=True)) == sorted(
        zip(expected.query_id, expected.doc_id, expected.text, strict=True)
    )
    assert found.query_id.tolist() == [q for q in dict.fromkeys(q for q, *_ in rows) if q in set(expected.query_id)]


def test_ray_data_writes_the_same_groups(tmp_path: Path, ray_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"q{q}", f"d{(q * 7 + n) % 100}", float(n == 0), None) for q in range(40) for n in range(5)]
    queries = pa.table([[f"q{n}" for n in range(40)], [f"question {n}" for n in range(40)]], schema=QUERIES)
    corpus = made(tmp_path / "corpus", 100, 4)
    here = read_groups(group_texts(labelled(*rows), queries, corpus, tmp_path / "here"))
    monkeypatch.setattr(spread_module, "WORTH_JOINING_BYTES", 0)
    monkeypatch.setattr(module, "BUCKET_ROWS", 50)
    parts = group_texts(labelled(*rows), queries, corpus, tmp_path / "there")
    assert len(parts) == 4 and read_groups(parts) == here


def collection(size: int, run: pa.Table | None = None, **more: Any) -> Collection:
    ids = [f"d{n}" for n in range(size)]
    corpus = pa.table([ids, [""] * size, [f"text {n}" for n in range(size)]], schema=CORPUS)
    queries = pa.table([["q", "r"], ["which", "what"]], schema=QUERIES)
    judged = pa.table([["q", "q", "q", "q", "r"], ["d0", "d1", "d2", "d3", "d4"], [3, 1, 0, -2, 1]], schema=QRELS)
    return Collection("made", "train", corpus, queries, judged, run, **more)


def test_graded_labels_stay_and_hard_and_random_negatives_mix_in_the_stated_ratio() -> None:
    run = pa.table([["q"] * 6, ["d1", "d10", "d11", "d12", "d13", "d14"], [6.0, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6]],
                   schema=RUN)  # fmt: skip
    groups = DataPreprocessor(seed=1).create_groups(collection(500, run), 4, random_ratio=0.5).to_pylist()
    first = groups[0]
    assert first["labels"] == [3.0, 1.0] + [0.0] * 8 and first["doc_ids"][:2] == ["d0", "d1"]
    assert first["doc_ids"][2:6] == ["d2", "d3", "d10", "d11"], "judged irrelevant first, then the candidates"
    random = set(first["doc_ids"][6:])
    assert len(random) == 4 and not random & {"d0", "d1", "d2", "d3", "d10", "d11", "d12", "d13", "d14"}
    assert len(groups[1]["doc_ids"]) == 1 + 4, "r has no hard ones: all of its negatives are random"
    again = DataPreprocessor(seed=1).create_groups(collection(500, run), 4, random_ratio=0.5).to_pylist()
    other = DataPreprocessor(seed=2).create_groups(collection(500, run), 4, random_ratio=0.5).to_pylist()
    assert again == groups != other


def test_a_query_draws_the_same_whatever_other_queries_there_are() -> None:
    both = DataPreprocessor().create_groups(collection(500), 4).to_pylist()
    alone = DataPreprocessor().create_groups(collection(500).with_queries(["r"]), 4).to_pylist()
    assert alone == both[1:]


def test_grades_below_the_level_of_the_collection_are_negatives() -> None:
    groups = DataPreprocessor().create_groups(collection(50, relevance_level=2), 3).to_pylist()
    assert [(row["query_id"], row["labels"]) for row in groups] == [("q", [3.0, 0.0, 0.0, 0.0])]
    assert groups[0]["doc_ids"] == ["d0", "d1", "d2", "d3"]


def test_reserved_documents_never_come_into_training() -> None:
    reserved = pa.array(["d1", "d2", *(f"d{n}" for n in range(10, 38))])
    made = collection(40, reserved=reserved)
    triples = DataPreprocessor().create_triples(made, num_negatives=20)
    seen = {text for _, positive, negative in triples for text in (positive, negative)}
    assert not seen & {f"text {doc_id[1:]}" for doc_id in reserved.to_pylist()}
    assert {positive for query, positive, _ in triples if query == "which"} == {"text 0"}
    assert len(seen) == 10


def test_triples_of_the_collection_itself_are_used_as_they_are() -> None:
    own = pa.table(
        {"query_id": ["r", "q", "q"], "positive_id": ["d4", "d0", "d1"], "negative_id": ["d9", "d8", "gone"]}
    )
    triples = DataPreprocessor().create_triples(collection(10, triples=own))
    assert triples == [("what", "text 4", "text 9"), ("which", "text 0", "text 8")]


def test_a_ratio_that_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match=r"random_ratio 1.5 must be between 0 and 1"):
        DataPreprocessor().create_groups(collection(10), random_ratio=1.5)


def test_another_call_into_the_same_folder_begins_anew_and_foreign_parts_are_refused(tmp_path: Path) -> None:
    first, second = collection(60), collection(60).with_queries(["r"])
    preprocessor = DataPreprocessor()
    preprocessor.write_groups(first, tmp_path / "g", 1)
    parts = preprocessor.write_groups(second, tmp_path / "g", 3)
    assert [(row["query_id"], len(row["documents"])) for row in read_groups(parts).to_pylist()] == [("r", 4)]
    assert preprocessor.write_groups(second, tmp_path / "g", 3) == parts
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "part-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"foreign: holds part-00000.parquet, .* name another folder"):
        preprocessor.write_groups(second, tmp_path / "foreign", 3)


def test_a_killed_call_goes_on_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUCKET_ROWS", 10)
    rows = [(f"q{q}", f"d{(q * 3 + n) % 30}", float(n == 0), None) for q in range(12) for n in range(5)]
    queries = pa.table([[f"q{n}" for n in range(12)], [f"question {n}" for n in range(12)]], schema=QUERIES)
    corpus = made(tmp_path / "corpus", 30, 3)
    whole = read_groups(group_texts(labelled(*rows), queries, corpus, tmp_path / "whole"))
    written = []

    def stopping(table: pa.Table, path: Path) -> None:
        written.append(path.name)
        if len(written) == 3:
            raise KeyboardInterrupt
        write_table(table, path)

    monkeypatch.setattr(module, "write_table", stopping)
    with pytest.raises(KeyboardInterrupt):
        group_texts(labelled(*rows), queries, corpus, tmp_path / "killed")
    assert read_groups(group_texts(labelled(*rows), queries, corpus, tmp_path / "killed")) == whole
    assert len(written) == len(set(written)) + 1, "only the bucket that was interrupted is written twice"


def test_a_document_that_thousands_of_examples_want_is_not_in_memory_for_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_BYTES", 50_000)
    text = "x" * 1000
    corpus = TableCorpus(pa.table([["a"], [""], [text]], schema=CORPUS))
    queries = pa.table([[f"q{n}" for n in range(500)], ["?"] * 500], schema=QUERIES)
    flushed: list[int] = []
    flush = module._flush

    def watched(work: Path, number: int, file: int, found: Any) -> None:
        flushed.append(sum(table.nbytes for table in found))
        flush(work, number, file, found)

    monkeypatch.setattr(module, "_flush", watched)
    rows = [(f"q{n}", "a", 1.0, None) for n in range(500)]
    assert read_groups(group_texts(labelled(*rows), queries, corpus, tmp_path)).num_rows == 500
    assert len(flushed) >= 6 and max(flushed) < 120_000
