"""The files of MS MARCO by their names: which is which, and which split it belongs to.

https://microsoft.github.io/msmarco/ , https://microsoft.github.io/msmarco/TREC-Deep-Learning
"""

import re
from pathlib import PurePosixPath

from ranker.data.files import DataFile, DataFiles
from ranker.data.formats.qrels import whole_number
from ranker.data.formats.trec_topics import HEADER_NAMES

# Name without folder and .gz -> kind; the first that fits counts.
_KINDS = [
    ("qrels", re.compile("qrels")),
    ("triples", re.compile("triples")),
    ("candidates", re.compile(r"top\d+")),
    ("run", re.compile(r"^runs?([._-]|$)|\.(run|trec)$")),
    ("queries", re.compile("quer(y|ies)|^topics")),
    ("documents", re.compile(r"^(msmarco[._-])?(docs|documents)\b")),
    ("passages", re.compile(r"^(msmarco[._-])?(collection|passages?)\b")),
]
_OTHER = re.compile(
    r"^(readme|licen[cs]e|notice)|docs-lookup|\.(md|html?|pdf|py|sh|xml|(nd)?jsonl?|csv|parquet|arrow|zip|tar)$"
)
_DEEP_LEARNING = re.compile(r"20(19|2\d)|dl[._-]?(19|2\d)")
_NAMED = re.compile(r"(?:qrels|qidpidtriples|triples)\.(?!(?:tsv|txt)$)(.+?)(?:\.(?:tsv|txt))?")
# Kinds by which a folder is known whatever else lies in it.
_OWN = frozenset({"passages", "documents", "triples", "texts"})
_NUM_TABS = {"passages": 1, "documents": 3, "queries": 1, "triples": 2, "texts": 2, "candidates": 3}
HEAD_BYTES = 16 * 2**10


def kind_of(file: DataFile) -> str | None:
    """What a file is by its name; None where it is no file of MS MARCO.

    ``qrels``, ``queries``, ``passages``, ``documents``, ``triples`` (ids), ``texts`` (triples of texts), ``candidates``
    (with texts, without scores) or ``run`` (TREC's six columns). Its first line tells the last four apart.
    """
    kind = named_kind(file.name)
    if kind == "triples":
        texts = first_line(file).split("\t")
        # Texts have words; a header with the names of columns belongs to another format.
        return "texts" if any(" " in text.strip() for text in texts) else None if _names_columns(texts) else kind
    if kind in ("candidates", "run"):
        line = first_line(file)
        return "run" if not line or _is_ranked(line) else kind if kind == "candidates" else None
    return kind


def named_kind(name: str) -> str | None:
    """The same as far as the name tells it."""
    base = _base(name).lower()
    return None if _OTHER.search(base) else next((kind for kind, pattern in _KINDS if pattern.search(base)), None)


def recognise_msmarco(files: DataFiles) -> bool:
    """Whether the files have MS MARCO's names and columns: its own ones, or queries and judgements and nothing else."""
    known = [name for name in files.entries if not _OTHER.search(_base(name).lower())]
    kinds = {name: kind_of(files.entries[name]) for name in known}
    fits = {name for name, kind in kinds.items() if kind is not None and _fits(first_line(files.entries[name]), kind)}
    return any(kinds[name] in _OWN for name in fits) or (bool(fits) and fits == set(known))


def split_of(name: str, default: str = "test") -> str:
    """``qrels.dev.small.tsv`` -> dev, ``2019qrels-pass.txt`` -> test, ``qrels.mine.tsv`` -> mine."""
    base = _base(name)
    for split in ("train", "dev"):
        if split in base.lower():
            return split
    if _DEEP_LEARNING.search(base.lower()):
        return "test"
    named = _NAMED.fullmatch(base)
    return named.group(1) if named else default


def has_deep_learning_grades(file: DataFile) -> bool:
    """Whether judgements are graded as the passages of a Deep Learning track are: by their name, and a grade above 1.

    In its documents, unlike its passages, grade 1 is relevant (https://arxiv.org/abs/2003.07820).
    """
    base = _base(file.name).lower()
    if not _DEEP_LEARNING.search(base) or "doc" in base:
        return False
    grades = (whole_number(line.split()[-1]) for line in file.head().split("\n") if line.strip())
    return any(grade is not None and grade > 1 for grade in grades)


def has_header(file: DataFile) -> bool:
    """Whether the first line names columns."""
    return first_line(file).partition("\t")[0].split(" ")[0].strip().lower() in HEADER_NAMES


def first_line(file: DataFile) -> str:
    """The first line that is not blank; empty where there is none."""
    return next((line for line in file.head(HEAD_BYTES).split("\n") if line.strip()), "")


def _base(name: str) -> str:
    return PurePosixPath(name).name.removesuffix(".gz")


def _fits(line: str, kind: str) -> bool:
    if kind == "qrels":
        return not line or len(line.split()) == 4
    return kind == "run" or not line or line.count("\t") >= _NUM_TABS[kind]


def _is_ranked(line: str) -> bool:
    fields = line.split()
    return len(fields) == 6 and whole_number(fields[3]) is not None


def _names_columns(fields: list[str]) -> bool:
    return fields[0].strip().lower() in {"query", "anchor", "question", "sentence1", "text"}
