"""TREC files: runs ``qid Q0 docid rank score tag`` and judgements ``qid 0 docid relevance``.

https://trec.nist.gov/data/ ; ids have no blanks, fields are separated by any white space.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.files import DataFile, Line
from ranker.data.formats.qrels import whole_number
from ranker.data.formats.trec_blocks import parse_judgement_block, parse_run_block
from ranker.data.pieces import BLOCK_ROWS, LinePiece, Row
from ranker.schemas import QRELS, RUN, require

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "devel", "development", "val", "valid", "validation"), "dev"),
    "test": "test",
}


def write_trec_run(run: pa.Table, path: Path, tag: str) -> None:
    """Write RUN in query and rank order; scores keep all their digits.

    Raises:
        DataError: on an id or a tag that holds white space, which the format cannot say.
    """
    run = require(run, RUN, "run")
    _check_ids([run["query_id"], run["doc_id"]], [tag])
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(run_lines(run, tag))


def write_trec_qrels(qrels: pa.Table, path: Path) -> None:
    """Write QRELS; the second field is always 0.

    Raises:
        DataError: on an id that holds white space.
    """
    qrels = require(qrels, QRELS, "qrels")
    _check_ids([qrels["query_id"], qrels["doc_id"]])
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(qrels_lines(qrels))


def run_lines(run: pa.Table, tag: str) -> Iterator[str]:
    """RUN as lines of a run file, by query and rank."""
    for row in rows_of(run.sort_by([("query_id", "ascending"), ("rank", "ascending")])):
        yield f"{row['query_id']} Q0 {row['doc_id']} {row['rank']} {row['score']!r} {tag}\n"


def qrels_lines(qrels: pa.Table, separator: str = " ") -> Iterator[str]:
    """QRELS as lines of a judgement file, in their order."""
    for row in rows_of(qrels):
        yield separator.join((row["query_id"], "0", row["doc_id"], str(row["relevance"]))) + "\n"


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows of a table, a block of them in memory as Python objects."""
    for start in range(0, table.num_rows, BLOCK_ROWS):
        yield from table.slice(start, BLOCK_ROWS).to_pylist()


def is_one_word(value: str) -> bool:
    """Whether a TREC file can say this id: it is not empty, holds no white space and begins with no byte order mark."""
    return value.split() == [value] and not value.startswith("\ufeff")


def read_trec_run(path: Path) -> pa.Table:
    """RUN from a TREC run file (``.gz`` too).

    Raises:
        DataError: naming the lines that are no run lines, or that rank a document twice.
    """
    mistakes = Mistakes(str(path))
    run = read_runs([_file(path)], mistakes)
    mistakes.raise_if_any()
    return run


def read_trec_qrels(path: Path) -> pa.Table:
    """QRELS from a TREC judgement file (``.gz`` too); a judgement that stands twice is kept once.

    Raises:
        DataError: naming the lines that are no judgements, or that contradict one another.
    """
    mistakes = Mistakes(str(path))
    qrels = read_qrels([LinePiece(_file(path), QRELS, parse_judgement, parse_block=parse_judgement_block)], mistakes)
    mistakes.raise_if_any()
    return qrels


def read_runs(files: Sequence[DataFile], mistakes: Mistakes) -> pa.Table:
    """RUN of all the files; that a document stands twice for one query is a mistake, in two files too."""
    pieces = [LinePiece(file, RUN, parse_run, parse_block=parse_run_block) for file in files]
    return ranked_once(gather(pieces, RUN, mistakes), pieces, mistakes)


def ranked_once(run: pa.Table, pieces: Sequence[LinePiece], mistakes: Mistakes) -> pa.Table:
    """RUN with each pair of query and document once; the lines that give one again are mistakes.

    Args:
        run: all that ``pieces`` give; their rows begin with query and document.
    """
    again = first_rows(run) != np.arange(run.num_rows)
    for (query_id, doc_id), lines in _lines_of(run.filter(pa.array(again)), pieces).items():
        for _, place in lines[1:]:
            problem = f"document {doc_id!r} stands twice in the list of query {query_id!r}, first at {lines[0][1]}"
            mistakes.add(place, f"{problem}; keep one")
    return run.filter(pa.array(~again))


def read_qrels(pieces: Sequence[LinePiece], mistakes: Mistakes) -> pa.Table:
    """QRELS of all the pieces, in order; the same judgement again is left out, one that contradicts is a mistake."""
    qrels = gather(pieces, QRELS, mistakes)
    first = first_rows(qrels)
    again = first != np.arange(qrels.num_rows)
    relevance = qrels["relevance"].to_numpy()
    contradicting = qrels.filter(pa.array(relevance != relevance[first]))
    for pair, lines in _lines_of(contradicting, pieces).items():
        (_, _, said), where = lines[0]
        for (_, _, other), place in lines[1:]:
            if other != said:
                mistakes.add(place, f"{pair} has relevance {other} here and {said} at {where}; keep one of them")
    return qrels.filter(pa.array(~again))


def split_of(name: str) -> str:
    """``qrels.train.txt``, ``dev/qrels.gz``, ``qrels`` -> train, dev, test."""
    for part in reversed(PurePosixPath(name.lower().removesuffix(".gz")).parts):
        for word in re.split("[^a-z]+", part):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return "test"


def parse_run(line: Line, mistakes: Mistakes) -> Row | None:
    """``qid Q0 docid rank score tag`` as a row of RUN."""
    fields = _fields(line, 6, "qid Q0 docid rank score tag", mistakes)
    if fields is None:
        return None
    rank, score = whole_number(fields[3]), _number(fields[4])
    if rank is None or score is None:
        mistakes.add(line.place, f"rank {fields[3]!r} or score {fields[4]!r} is no number")
        return None
    return fields[0], fields[2], score, rank


def parse_judgement(line: Line, mistakes: Mistakes) -> Row | None:
    """``qid 0 docid relevance`` as a row of QRELS."""
    fields = _fields(line, 4, "qid 0 docid relevance", mistakes)
    if fields is None:
        return None
    relevance = whole_number(fields[3])
    if relevance is None:
        mistakes.add(line.place, f"relevance {fields[3]!r} is no whole number; write 0, 1, 2, ...")
        return None
    return fields[0], fields[2], relevance


def gather(pieces: Iterable[LinePiece], schema: pa.Schema, mistakes: Mistakes) -> pa.Table:
    """The rows of all the pieces as one table."""
    tables = chain.from_iterable(piece.tables(mistakes) for piece in pieces)
    return pa.concat_tables([schema.empty_table(), *tables])


def first_rows(table: pa.Table) -> NDArray[np.int64]:
    """For each row the number of the first row that has the same query and document."""
    queries, documents = (
        table[name].combine_chunks().dictionary_encode() for name in ("query_id", "doc_id")
    )  # fmt: skip
    keys = queries.indices.to_numpy().astype(np.int64) * (len(documents.dictionary) + 1)
    _, first, inverse = np.unique(keys + documents.indices.to_numpy(), return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def _lines_of(pairs: pa.Table, pieces: Sequence[LinePiece]) -> dict[tuple[str, str], list[tuple[Row, str]]]:
    """Row and place of every line about these pairs of query and document; the files are read again."""
    found: dict[tuple[str, str], list[tuple[Row, str]]] = {
        pair: [] for pair in zip(pairs["query_id"].to_pylist(), pairs["doc_id"].to_pylist(), strict=True)
    }
    for piece in pieces if found else ():
        ignored = Mistakes(piece.file.where)
        for line in piece.file.lines(ignored, piece.span):
            row = piece.parse(line, ignored)
            if row is not None and row[:2] in found:
                found[row[:2]].append((row, line.place))
    return found


def _fields(line: Line, count: int, form: str, mistakes: Mistakes) -> list[str] | None:
    fields = line.text.split()
    if len(fields) == count:
        return fields
    mistakes.add(line.place, f"{len(fields)} fields in {shown(line.text)}; write {form}")
    return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _file(path: Path) -> DataFile:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return DataFile(path.name, str(path))


def _check_ids(columns: Sequence[pa.ChunkedArray], others: Sequence[str] = ()) -> None:
    values = chain(others, *(column.unique().to_pylist() for column in columns))
    bad = sorted({value for value in values if not is_one_word(value)})
    if bad:
        raise DataError(
            f"{len(bad)} ids are empty or hold white space, which TREC files cannot say: {shown(bad[:5])}; rename them"
        )
