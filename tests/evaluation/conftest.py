from collections.abc import Callable

import pyarrow as pa
import pytest

from ranker.schemas import CORPUS, QRELS, QUERIES, RUN, Collection


def table(schema: pa.Schema, *rows: tuple) -> pa.Table:
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=schema)


@pytest.fixture(scope="session")
def ranked() -> Callable[..., pa.Table]:
    """``ranked(q1="a b c")``: RUN with falling scores in that order."""

    def make(**lists: str) -> pa.Table:
        rows = []
        for query_id, docs in lists.items():
            names = docs.split()
            rows += [(query_id, doc, float(len(names) - n), n + 1) for n, doc in enumerate(names)]
        return table(RUN, *rows)

    return make


@pytest.fixture(scope="session")
def letters() -> Collection:
    """Three queries on four documents; a answers q1, b answers q2, c (well) and d (somewhat) answer q3."""
    return Collection(
        "letters",
        "test",
        table(CORPUS, ("a", "A", "alpha"), ("b", "", "beta"), ("c", "C", "gamma <b>"), ("d", "D", "delta")),
        table(QUERIES, ("q1", "first letter"), ("q2", "second & letter"), ("q3", "third letter")),
        table(QRELS, ("q1", "a", 1), ("q2", "b", 1), ("q3", "c", 2), ("q3", "d", 1)),
    )


@pytest.fixture(scope="session")
def first(ranked) -> pa.Table:
    """Reciprocal ranks 1/2, 1, 1/2."""
    return ranked(q1="b a c", q2="b a d", q3="a d c")


@pytest.fixture(scope="session")
def after(ranked) -> pa.Table:
    """Reciprocal ranks 1, 1/2, 1/2; in q3 the better document now stands above the other."""
    return ranked(q1="a b c", q2="a b d", q3="a c d")
