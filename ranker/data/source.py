"""A data set that has been recognised and not yet read, and the table of the formats that it may be in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from ranker.data.errors import Mistakes
from ranker.data.files import DataFiles
from ranker.data.pieces import Piece
from ranker.data.splits import Splits
from ranker.registry import Registry
from ranker.schemas import QUERIES


def no_queries(mistakes: Mistakes) -> pa.Table:
    """A source without queries."""
    return QUERIES.empty_table()


def no_tables(mistakes: Mistakes) -> dict[str, pa.Table]:
    """A source without judgements, or without triples."""
    return {}


def no_run(mistakes: Mistakes) -> pa.Table | None:
    """A source without candidates."""
    return None


@dataclass(frozen=True)
class Source:
    """Documents as pieces that are read in parallel; what hangs on queries is read in one process.

    The functions note what is wrong in the Mistakes that they are given, and leave those rows out.

    Args:
        name: of the data set. format: its name in FORMATS, or where it comes from.
        corpus: pieces of CORPUS, in the source's order.
        queries: QUERIES. qrels: split -> QRELS. run: RUN or None. triples: split -> ID_TRIPLES.
        relevance_levels: split -> judgements from this number on count as relevant; 1 where it is not named.
        corpus_name, queries_name: what error messages call the files.
        same_id_same_text: a document that occurs twice with the same text is no mistake.
    """

    name: str
    format: str
    corpus: Sequence[Piece]
    queries: Callable[[Mistakes], pa.Table] = no_queries
    qrels: Callable[[Mistakes], dict[str, pa.Table]] = no_tables
    run: Callable[[Mistakes], pa.Table | None] = no_run
    triples: Callable[[Mistakes], dict[str, pa.Table]] = no_tables
    relevance_levels: Mapping[str, int] = field(default_factory=dict)
    corpus_name: str = "the corpus"
    queries_name: str = "the queries"
    same_id_same_text: bool = False


@dataclass(frozen=True)
class ExampleSource:
    """Training examples with their texts in them; corpus, queries and judgements follow from those.

    Args:
        examples: split -> pieces of EXAMPLES.
    """

    name: str
    format: str
    examples: Mapping[str, Sequence[Piece]] = field(default_factory=dict)


class Format(NamedTuple):
    """A format of the field.

    Args:
        layout: what its files are, in one sentence for an error message.
        recognise: whether these files are in it, by their names and first lines.
        open: the files as a source. write: a data set to a folder in it; ``lossy`` allows what the format
            cannot say to be changed (a line feed to a space), otherwise that is a DataError before anything is written.
    """

    layout: str
    recognise: Callable[[DataFiles], bool]
    open: Callable[[DataFiles], Source | ExampleSource]
    write: Callable[[Path, Splits, bool], None]


# In the order in which they are asked whether they recognise a data set.
FORMATS: Registry[Format] = Registry("data format")
