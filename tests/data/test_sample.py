from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ranker.data.sample import sample_documents, sample_judgements
from ranker.data.splits import Splits
from ranker.data.stored import open_splits, save_collection
from ranker.schemas import CORPUS, ID_TRIPLES, QRELS, QUERIES, RUN


def table(schema: pa.Schema, *rows: tuple[Any, ...]) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=schema)


CORPUS_TABLE = table(CORPUS, *((f"d{n:03d}", "", f"text {n}") for n in range(100)))
QUERY_TABLE = table(QUERIES, *((f"q{n}", f"question {n}") for n in range(20)))
JUDGED = table(QRELS, ("q0", "d000", 1), ("q1", "d001", 1), ("q1", "lost", 1))


@pytest.mark.parametrize("stored", [False, True])
def test_candidates_and_triples_name_no_document_outside_the_sample(stored: bool, tmp_path: Path) -> None:
    save_collection(tmp_path, CORPUS_TABLE, QUERY_TABLE, {"train": JUDGED})
    corpus = open_splits(tmp_path).corpus if stored else CORPUS_TABLE
    run = table(RUN, *(("q0", f"d{n:03d}", float(-n), n + 1) for n in range(100)))
    triples = table(ID_TRIPLES, ("q0", "d000", "d050"), ("q0", "d000", "lost"))
    data = Splits("made", corpus, QUERY_TABLE, {"train": JUDGED}, run, {"train": triples})
    small = sample_documents(data, 10, seed=1)
    kept = set(small.corpus.table()["doc_id"].to_pylist())
    assert len(kept) == 10 and {"d000", "d001", "d050"} <= kept
    assert small.run is not None and set(small.run["doc_id"].to_pylist()) == kept
    assert small.run.filter(pa.compute.equal(small.run["doc_id"], "d050"))["rank"].to_pylist() == [51]
    assert small.triples["train"].to_pylist() == triples.slice(0, 1).to_pylist()


def test_a_split_that_has_only_triples_is_drawn_from_the_queries_that_they_ask() -> None:
    triples = table(ID_TRIPLES, *((f"q{n}", "d000", "d001") for n in range(2, 20)))
    data = Splits("made", CORPUS_TABLE, QUERY_TABLE, {"test": JUDGED}, triples={"train": triples})
    small = sample_judgements(data, 5, seed=1)
    assert small.triples["train"].num_rows == 5
    assert small.collection("train").queries.num_rows == 5 and small.collection("test").queries.num_rows == 2
