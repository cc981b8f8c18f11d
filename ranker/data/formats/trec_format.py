"""A TREC collection: documents in SGML, topics, judgements and runs, in any folders, told apart by what is in them.

https://trec.nist.gov/data/
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import pyarrow as pa

from ranker.data.errors import DataError, Mistakes
from ranker.data.files import DataFile, DataFiles
from ranker.data.formats.left_out import say_left_out
from ranker.data.formats.qrels import whole_number
from ranker.data.formats.trec import parse_judgement, read_qrels, read_runs, split_of
from ranker.data.formats.trec_documents import TrecDocuments
from ranker.data.formats.trec_topics import read_topics, record_tag
from ranker.data.formats.trec_write import write_trec
from ranker.data.pieces import LinePiece
from ranker.data.source import FORMATS, Format, Source, no_queries, no_run
from ranker.schemas import QRELS

LAYOUT = (
    "a TREC collection holds files with <DOC> <DOCNO> id </DOCNO> ... </DOC>, and where it has them topics, "
    "qrels.train.txt (qrels.dev.txt, qrels.test.txt) and a run; in any folders, .gz is fine"
)
# What tells a file of a collection from another, and how many are looked at to recognise one.
HEAD_BYTES = 16 * 2**10
NUM_LOOKED_AT = 100

_DOC = re.compile(r"<doc(?:\s[^<>]*)?>", re.IGNORECASE)
_DOCNO = re.compile(r"<docno(?:\s[^<>]*)?>", re.IGNORECASE)
_RUN_NAME = re.compile(r"(^|[._-])runs?([._-]|$)")
_OTHER = re.compile(
    r"(^|/)(readme|licen[cs]e|notice|copying)|\.(md|html?|pdf|py|sh|(nd)?jsonl?|csv|parquet|arrow|zip|tar)$"
)


def recognise_trec(files: DataFiles) -> bool:
    """Whether some file begins with a document in SGML."""
    names = [name for name in sorted(files.entries) if not _OTHER.search(_plain(name))]
    heads = (files.entries[name].head(HEAD_BYTES) for name in names[:NUM_LOOKED_AT])
    return any(_DOC.search(head) and _DOCNO.search(head) for head in heads)


def open_trec(files: DataFiles) -> Source:
    """A folder, zip or file with TREC documents, and with the topics, judgements and run that are there.

    The split of judgements is the word train, dev (valid, val) or test in the name of their file or folder, otherwise
    test. All topics are the queries; several runs are one, as long as they rank other queries.

    Raises:
        DataError: where no file is one of these.
    """
    found: dict[str, list[DataFile]] = {"documents": [], "topics": [], "qrels": [], "run": []}
    for name in sorted(files.entries):
        kind = kind_of(files.entries[name])
        if kind is None:
            say_left_out(files.entries[name], "a TREC collection")
        else:
            found[kind].append(files.entries[name])
    if not any(found.values()):
        raise DataError(f"{files.where}: no documents, topics, judgements or run in {files.listing()}; {LAYOUT}")
    return Source(
        name=Path(files.where).name.removesuffix(".zip"),
        format="trec",
        corpus=[TrecDocuments(file) for file in found["documents"]],
        queries=partial(read_topics, found["topics"]) if found["topics"] else no_queries,
        qrels=partial(_read_splits, files.where, found["qrels"]),
        run=partial(read_runs, found["run"]) if found["run"] else no_run,
        corpus_name="the documents",
        queries_name=_named(found["topics"]) or "the topics",
    )


def kind_of(file: DataFile) -> str | None:
    """``documents``, ``topics``, ``qrels`` or ``run``, by name and first lines; None for anything else."""
    name = _plain(file.name)
    if _OTHER.search(name):
        return None
    head, base = file.head(HEAD_BYTES), PurePosixPath(name).name
    lines = [line.split() for line in head.split("\n") if line.strip()]
    if _are_judgements(lines, 6) or (not lines and _RUN_NAME.search(base)):
        return "run"
    says_topics = "topic" in base or "quer" in base
    if _are_judgements(lines, 4) and not says_topics:
        return "qrels"
    if _DOC.search(head):
        return "documents"
    if "qrel" in name:
        return "qrels"
    return "topics" if says_topics or record_tag(head) else None


def _plain(name: str) -> str:
    return name.lower().removesuffix(".gz")


def _named(files: Sequence[DataFile]) -> str:
    return ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")


def _are_judgements(lines: Sequence[Sequence[str]], num_fields: int) -> bool:
    """Whether all are of a run or of judgements: so many fields, of which the fourth is a whole number."""
    return bool(lines) and all(len(line) == num_fields and whole_number(line[3]) is not None for line in lines)


def _read_splits(where: str, files: Sequence[DataFile], mistakes: Mistakes) -> dict[str, pa.Table]:
    named: dict[str, DataFile] = {}
    for file in files:
        first = named.setdefault(split_of(file.name), file)
        if first is not file:
            split = split_of(file.name)
            problem = f"{first.name} and {file.name} are both judgements of the split {split!r}"
            mistakes.add(where, f"{problem}; name them qrels.train.txt, qrels.dev.txt and qrels.test.txt, or keep one")
    return {split: read_qrels([LinePiece(file, QRELS, parse_judgement)], mistakes) for split, file in named.items()}


FORMATS.register("trec")(Format(LAYOUT, recognise_trec, open_trec, write_trec))
