"""What can be said of the documents of a data set in one pass over its parts, which is spread over the cores."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.data.inspection.copies import NAMED, Copies, Digests, Some, digests_of, find_copies, save_digests
from ranker.data.spread import spread
from ranker.schemas import CORPUS, StoredCorpus, document_texts, read_blocks

# The digests of the texts of documents that are relevant somewhere.
TEXT_OF = pa.schema([("doc_id", pa.string()), ("digest", pa.binary())])


@dataclass(frozen=True)
class DocumentCounts:
    """The documents.

    Args:
        documents: with different ids. with_title: whose title is not empty. empty: title and text are.
        never_judged: without a judgement in any split.
    """

    documents: int
    with_title: int
    empty: Some
    never_judged: int


@dataclass(frozen=True)
class Scanned:
    """What the pass over the parts found.

    Args:
        copies: documents with the text of one before them. relevant: TEXT_OF the documents that were asked for.
    """

    documents: int
    with_title: int
    empty: Some
    copies: Copies
    relevant: pa.Table


def scan(corpus: StoredCorpus, relevant: pa.Array, work: Path) -> Scanned:
    """Read every part once.

    Args:
        relevant: doc_ids of which the digests are wanted. work: takes files that are as large as the digests.
    """
    work.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"doc_id": relevant}), work / "wanted.parquet")
    total = sum(part.stat().st_size for part in corpus.parts)
    spread(partial(scan_part, work), list(enumerate(corpus.parts)), total, "counting documents")
    numbers = range(len(corpus.parts))
    counts = [json.loads((work / f"{number:06d}.json").read_text("utf-8")) for number in numbers]
    empty = [doc_id for each in counts for doc_id in each["empty_ids"]]
    texts = [pq.read_table(work / f"{number:06d}.parquet") for number in numbers]
    return Scanned(
        sum(each["documents"] for each in counts),
        sum(each["with_title"] for each in counts),
        Some(sum(each["empty"] for each in counts), tuple(empty[:NAMED])),
        find_copies(corpus.parts, [work / f"{number:06d}.npy" for number in numbers]),
        pa.concat_tables([TEXT_OF.empty_table(), *texts]),
    )


def scan_part(work: Path, numbered: tuple[int, Path]) -> None:
    """Write of one part: its counts, its digests, and those of the documents that are wanted."""
    number, part = numbered
    wanted = pq.read_table(work / "wanted.parquet")["doc_id"]
    ids = pq.read_table(part, columns=["doc_id"])["doc_id"].combine_chunks()
    is_wanted = pc.is_in(ids, wanted).to_numpy(zero_copy_only=False)
    with_title, start = 0, 0
    digests, filled = [np.zeros((0, 2), dtype=np.uint64)], [np.zeros(0, dtype=bool)]
    for block in read_blocks(part, CORPUS):
        texts = document_texts(block)
        digests.append(digests_of(texts))
        filled.append(np.fromiter(map(bool, texts), dtype=bool, count=len(texts)))
        titles = pc.utf8_trim_whitespace(block["title"].fill_null(""))
        with_title += int(pc.sum(pc.not_equal(titles, "")).as_py() or 0)
        start += block.num_rows
    found, has_text = np.concatenate(digests), np.concatenate(filled)
    rows = np.flatnonzero(has_text)
    save_digests(work / f"{number:06d}.npy", found[rows], rows)
    relevant = np.flatnonzero(is_wanted & has_text)
    table = pa.table([ids.take(pa.array(relevant)), _as_binary(found[relevant])], schema=TEXT_OF)
    pq.write_table(table, work / f"{number:06d}.parquet")
    empty = np.flatnonzero(~has_text)
    named = ids.take(pa.array(empty[:NAMED])).to_pylist()
    counts = {"documents": len(ids), "with_title": with_title, "empty": len(empty), "empty_ids": named}
    (work / f"{number:06d}.json").write_text(json.dumps(counts), "utf-8")


def _as_binary(digests: Digests) -> pa.Array:
    return pa.array([row.tobytes() for row in digests], pa.binary())
