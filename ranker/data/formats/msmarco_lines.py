"""The lines of MS MARCO's files, one at a time or a block of them at once, and the files as pieces."""

from functools import partial

import numpy as np
import pyarrow as pa

from ranker.data.errors import Mistakes
from ranker.data.files import DataFile, Line
from ranker.data.formats.msmarco_files import has_header, kind_of
from ranker.data.formats.record_fields import query_id_of
from ranker.data.formats.tab_lines import TabForm
from ranker.data.pieces import LinePiece, Row, line_pieces
from ranker.schemas import CORPUS, EXAMPLES, ID_TRIPLES, RUN

PASSAGE = TabForm(("pid", "passage"), 1, rest=True)
DOCUMENT = TabForm(("docid", "url", "title", "body"), 1, rest=True)
QUERY = TabForm(("qid", "query"), 1, rest=True)
CANDIDATE = TabForm(("qid", "pid", "query", "passage"), 2, rest=True)
IDS = TabForm(("qid", "positive pid", "negative pid"), 3)
TEXTS = TabForm(("query", "positive", "negative"), 3)

CANDIDATES = pa.schema([RUN.field("query_id"), RUN.field("doc_id")])


def document_pieces(file: DataFile) -> list[LinePiece]:
    """The lines of ``collection.tsv`` or ``msmarco-docs.tsv`` as CORPUS."""
    line, block = (parse_passage, parse_passages) if kind_of(file) == "passages" else (parse_document, parse_documents)
    encoded = partial(block, encoding=file.encoding)
    return line_pieces(file, CORPUS, line, parse_block=encoded, skip_header=has_header(file))


def candidate_document_pieces(file: DataFile) -> list[LinePiece]:
    """The passages of ``top1000.dev.tsv`` as CORPUS, each as often as it stands there."""
    block = partial(parse_candidate_passages, encoding=file.encoding)
    return line_pieces(file, CORPUS, parse_candidate_passage, parse_block=block, skip_header=has_header(file))


def candidate_piece(file: DataFile) -> LinePiece:
    """The lines of ``top1000.dev.tsv`` as pairs of query and document."""
    block = partial(parse_candidates, encoding=file.encoding)
    return LinePiece(file, CANDIDATES, parse_candidate, parse_block=block, skip_header=has_header(file))


def triple_piece(file: DataFile) -> LinePiece:
    """The lines of ``qidpidtriples.train.full.tsv`` as ID_TRIPLES."""
    block = partial(parse_id_lines, encoding=file.encoding)
    return LinePiece(file, ID_TRIPLES, parse_ids, parse_block=block, skip_header=has_header(file))


def text_pieces(file: DataFile) -> list[LinePiece]:
    """The lines of ``triples.train.small.tsv`` as EXAMPLES."""
    return line_pieces(file, EXAMPLES, parse_texts, parse_block=partial(parse_text_lines, encoding=file.encoding))


def parse_passage(line: Line, mistakes: Mistakes) -> Row | None:
    """``pid<TAB>passage`` as a row of CORPUS; further tabs belong to the passage."""
    fields = PASSAGE.fields(line, mistakes)
    return None if fields is None else (fields[0], "", fields[1])


def parse_passages(block: bytes, encoding: str) -> pa.Table | None:
    """The same for a block of lines; None where one of them has to be looked at."""
    columns = PASSAGE.columns(block, encoding)
    if columns is None:
        return None
    return pa.table([columns[0], pa.repeat("", len(columns[0])), columns[1]], schema=CORPUS)


def parse_document(line: Line, mistakes: Mistakes) -> Row | None:
    """``docid<TAB>url<TAB>title<TAB>body`` as a row of CORPUS; further tabs belong to the body."""
    fields = DOCUMENT.fields(line, mistakes)
    return None if fields is None else (fields[0], fields[2], fields[3])


def parse_documents(block: bytes, encoding: str) -> pa.Table | None:
    """The same for a block of lines; None where one of them has to be looked at."""
    columns = DOCUMENT.columns(block, encoding)
    return None if columns is None else pa.table([columns[0], *columns[2:]], schema=CORPUS)


def parse_candidate_passage(line: Line, mistakes: Mistakes) -> Row | None:
    """``qid<TAB>pid<TAB>query<TAB>passage`` as a row of CORPUS."""
    fields = CANDIDATE.fields(line, mistakes)
    return None if fields is None else (fields[1], "", fields[3])


def parse_candidate_passages(block: bytes, encoding: str) -> pa.Table | None:
    """The same for a block of lines; None where one of them has to be looked at."""
    columns = CANDIDATE.columns(block, encoding)
    if columns is None:
        return None
    return pa.table([columns[1], pa.repeat("", len(columns[1])), columns[3]], schema=CORPUS)


def parse_candidate(line: Line, mistakes: Mistakes) -> Row | None:
    """``qid<TAB>pid<TAB>query<TAB>passage`` as query and document."""
    fields = CANDIDATE.fields(line, mistakes)
    return None if fields is None else tuple(fields[:2])


def parse_candidates(block: bytes, encoding: str) -> pa.Table | None:
    """The same for a block of lines; None where one of them has to be looked at."""
    columns = CANDIDATE.columns(block, encoding)
    return None if columns is None else pa.table(columns[:2], schema=CANDIDATES)


def parse_ids(line: Line, mistakes: Mistakes) -> Row | None:
    """``qid<TAB>pid<TAB>pid`` as a row of ID_TRIPLES."""
    fields = IDS.fields(line, mistakes)
    return None if fields is None else tuple(fields)


def parse_id_lines(block: bytes, encoding: str) -> pa.Table | None:
    """The same for a block of lines; None where one of them has to be looked at."""
    columns = IDS.columns(block, encoding)
    return None if columns is None else pa.table(columns, schema=ID_TRIPLES)


def parse_texts(line: Line, mistakes: Mistakes) -> Row | None:
    """``query<TAB>positive<TAB>negative`` as a row of EXAMPLES."""
    fields = TEXTS.fields(line, mistakes)
    return None if fields is None else (query_id_of(fields[0]), fields[0], fields[1:], [1.0, 0.0], None, None)


def parse_text_lines(block: bytes, encoding: str) -> pa.Table | None:
    """The same for a block of lines; None where one of them has to be looked at."""
    columns = TEXTS.columns(block, encoding)
    if columns is None:
        return None
    queries, positives, negatives = columns
    count = len(queries)
    ends = pa.array(np.arange(0, 2 * count + 1, 2, dtype=np.int32))
    in_turn = pa.array(np.arange(2 * count).reshape(2, count).T.ravel())
    documents = pa.ListArray.from_arrays(ends, pa.concat_arrays([positives, negatives]).take(in_turn))
    labels = pa.ListArray.from_arrays(ends, pa.array(np.tile(np.array([1, 0], np.float32), count)))
    query_ids = pa.array([query_id_of(query) for query in queries.to_pylist()], pa.string())
    nulls = [pa.nulls(count, EXAMPLES.field(name).type) for name in ("doc_ids", "scores")]
    return pa.table([query_ids, queries, documents, labels, *nulls], schema=EXAMPLES)
