"""TREC files: runs ``qid Q0 docid rank score tag`` and judgements ``qid 0 docid relevance``.

https://trec.nist.gov/data/ ; ids have no blanks, fields are separated by any white space.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.files import OpenFile
from ranker.schemas import QRELS, RUN, require


def write_trec_run(run: pa.Table, path: Path, tag: str) -> None:
    """Write RUN in query and rank order; scores keep all their digits.

    Raises:
        DataError: on an id or a tag that holds white space, which the format cannot say.
    """
    rows = require(run, RUN, "run").sort_by([("query_id", "ascending"), ("rank", "ascending")]).to_pylist()
    _check_ids([row["query_id"] for row in rows], [row["doc_id"] for row in rows], [tag])
    lines = [f"{row['query_id']} Q0 {row['doc_id']} {row['rank']} {row['score']!r} {tag}\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def write_trec_qrels(qrels: pa.Table, path: Path) -> None:
    """Write QRELS; the second field is always 0.

    Raises:
        DataError: on an id that holds white space.
    """
    rows = require(qrels, QRELS, "qrels").to_pylist()
    _check_ids([row["query_id"] for row in rows], [row["doc_id"] for row in rows])
    lines = [f"{row['query_id']} 0 {row['doc_id']} {row['relevance']}\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def read_trec_run(path: Path) -> pa.Table:
    """RUN from a TREC run file (``.gz`` too).

    Raises:
        DataError: naming the lines that are no run lines, or that rank a document twice.
    """
    rows: list[tuple[str, str, float, int]] = []
    mistakes, seen = Mistakes(str(path)), set()
    for place, fields in _fields(path, 6, "qid Q0 docid rank score tag", mistakes):
        try:
            row = (fields[0], fields[2], float(fields[4]), int(fields[3]))
        except ValueError:
            mistakes.add(place, f"rank {fields[3]!r} or score {fields[4]!r} is no number")
            continue
        if row[:2] in seen:
            mistakes.add(place, f"document {row[1]!r} stands twice in the list of query {row[0]!r}; keep one")
        seen.add(row[:2])
        rows.append(row)
    mistakes.raise_if_any()
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], [], []], schema=RUN)


def read_trec_qrels(path: Path) -> pa.Table:
    """QRELS from a TREC judgement file (``.gz`` too).

    Raises:
        DataError: naming the lines that are no judgements.
    """
    rows: list[tuple[str, str, int]] = []
    mistakes = Mistakes(str(path))
    for place, fields in _fields(path, 4, "qid 0 docid relevance", mistakes):
        try:
            rows.append((fields[0], fields[2], int(fields[3])))
        except ValueError:
            mistakes.add(place, f"relevance {fields[3]!r} is no whole number; write 0, 1, 2, ...")
    mistakes.raise_if_any()
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], []], schema=QRELS)


def _fields(path: Path, count: int, form: str, mistakes: Mistakes) -> list[tuple[str, list[str]]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    split = []
    for place, line in OpenFile(path.name, str(path)).lines(mistakes):
        fields = line.split()
        if len(fields) == count:
            split.append((place, fields))
        else:
            mistakes.add(place, f"{len(fields)} fields in {shown(line)}; write {form}")
    return split


def _check_ids(*columns: Sequence[str]) -> None:
    bad = sorted({value for column in columns for value in column if not value or value.split() != [value]})
    if bad:
        raise DataError(
            f"{len(bad)} ids are empty or hold white space, which TREC files cannot say: {shown(bad[:5])}; rename them"
        )
