"""A block of lines of a TREC file at once: a published run has millions of them.

What is not plain gives None, and the lines of that block are looked at one by one.
"""

import re

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ranker.schemas import QRELS, RUN

# Lines may be indented and fields apart by any white space; these are the ones that files have.
_GAPS = re.compile(rb"[ \t]{2,}|\t")
_ENDS = re.compile(rb"[ \t]*\r?\n[ \t]*")
# What Python also takes for white space, and a carriage return on its own.
_STRANGE = b"\x0b\x0c\r\x1c\x1d\x1e\x1f"


def parse_run_block(block: bytes) -> pa.Table | None:
    """Lines ``qid Q0 docid rank score tag`` as RUN."""
    return _parsed(block, ["query_id", "q0", "doc_id", "rank", "score", "tag"], RUN)


def parse_judgement_block(block: bytes) -> pa.Table | None:
    """Lines ``qid 0 docid relevance`` as QRELS."""
    return _parsed(block, ["query_id", "iteration", "doc_id", "relevance"], QRELS)


def parse_ranking_block(block: bytes) -> pa.Table | None:
    """Lines ``qid docid rank``, as MS MARCO takes runs, as RUN; the score is what falls with the rank."""
    named = pa.schema([RUN.field(name) for name in ("query_id", "doc_id", "rank")])
    found = _parsed(block, named.names, named)
    return None if found is None else scored_by_rank(found)


def scored_by_rank(found: pa.Table) -> pa.Table:
    """RUN from query_id, doc_id and rank."""
    score = pc.negate(found["rank"].cast(pa.float64()))
    return pa.table([found["query_id"], found["doc_id"], score, found["rank"]], schema=RUN)


def _parsed(block: bytes, names: list[str], schema: pa.Schema) -> pa.Table | None:
    if not block.isascii():
        return None
    plain = _with_single_spaces(block)
    if not plain or len(plain.translate(None, _STRANGE)) != len(plain):
        return None
    types = {name: schema.field(name).type if name in schema.names else pa.string() for name in names}
    try:
        found = csv.read_csv(
            pa.BufferReader(plain),
            read_options=csv.ReadOptions(column_names=names, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=" ", quote_char=False),
            convert_options=csv.ConvertOptions(column_types=types, include_columns=schema.names),
        )
    except pa.ArrowInvalid:  # another number of fields, or a number that is none
        return None
    return None if any(column.null_count for column in found.columns) else found


def _with_single_spaces(block: bytes) -> bytes:
    """One space between fields and none at the ends; most files are so, and only others pay for it."""
    if b"\t" in block or b"  " in block:
        block = _GAPS.sub(b" ", block)
    if b" \n" in block or b"\n " in block or b"\r\n" in block:
        block = _ENDS.sub(b"\n", block)
    return block.strip(b" \t\n")
