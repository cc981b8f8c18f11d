"""Labelled ids become EXAMPLES with their texts, in memory that grows neither with the corpus nor with the examples.

Two passes over files, each of them spread over the cores. The first reads every part of the corpus once and writes the
texts that examples want of it, cut at the borders of buckets of examples. The second puts a bucket together. The
order of the examples is that of the labels, whatever the number of parts, buckets and workers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.config import RayConfig
from ranker.data.parts import hash_ids, write_table
from ranker.data.spread import spread
from ranker.schemas import CORPUS, EXAMPLES, Corpus, StoredCorpus, document_texts, read_blocks, require

# One row a document of a group; the rows of a query follow each other. ``score``: a teacher's, or null.
LABELLED = pa.schema(
    [("query_id", pa.string()), ("doc_id", pa.string()), ("label", pa.float32()), ("score", pa.float32())]
)
TEXTS = pa.schema([("row", pa.int64()), ("text", pa.string())])

BUCKET_ROWS = 50_000
FLUSH_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Finish:
    """What becomes of a group when its texts are there.

    Args:
        drop_copies: a document with the text of one before it is left out.
        negatives_a_positive: documents of label 0 that stay for each one above it, the first ones. None: all.
        both_sides: a group without a label above 0, or without one of 0, is left out.
    """

    drop_copies: bool = False
    negatives_a_positive: int | None = None
    both_sides: bool = False


def group_texts(
    labelled: pa.Table,
    queries: pa.Table,
    corpus: Corpus,
    folder: Path,
    finish: Finish = Finish(),
    ray: RayConfig | None = None,
) -> list[Path]:
    """Write EXAMPLES to ``folder/part-NNNNN.parquet`` and return these files, in order.

    Args:
        labelled: LABELLED. Documents that the corpus lacks are left out, and so are groups without any.
        queries: QUERIES that hold their texts. folder: also takes files that are removed at the end; a call that was
            interrupted goes on in it.
    """
    labelled = require(labelled, LABELLED, "labelled documents").select(LABELLED.names).combine_chunks()
    plan = _Plan.make(labelled, queries)
    work = folder / "joining"
    (work / "texts").mkdir(parents=True, exist_ok=True)
    _save(work, labelled, plan)
    parts: list[Any] = list(enumerate(corpus.parts)) if isinstance(corpus, StoredCorpus) else []
    if parts:
        total = sum(part.stat().st_size for _, part in parts)
        spread(partial(_find_in_part, work), parts, total, "joining texts to examples", ray)
    else:
        _find_texts(work, 0, corpus.blocks())
    size = sum(file.stat().st_size for file in (work / "texts").glob("*.arrow"))
    spread(partial(_write_bucket, work, folder, finish), range(plan.num_buckets), size, "writing groups", ray)
    _clean(work)
    return sorted(folder.glob("part-*.parquet"))


@dataclass(frozen=True)
class _Plan:
    """Where each group begins among the rows of LABELLED, and where each bucket begins among the groups."""

    groups: pa.Table
    buckets: NDArray[np.int64]

    @property
    def num_buckets(self) -> int:
        return len(self.buckets) - 1

    @classmethod
    def make(cls, labelled: pa.Table, queries: pa.Table) -> "_Plan":
        ids = labelled["query_id"]
        changes = pc.not_equal(ids[1:], ids[:-1]).to_numpy().astype(bool) if len(ids) else np.zeros(0, dtype=bool)
        edges = np.append(np.flatnonzero(np.append(len(ids) > 0, changes)), len(ids)).astype(np.int64)
        starts, ends = edges[:-1], edges[1:]
        first = ids.take(pa.array(starts))
        places = pc.index_in(first, queries["query_id"].combine_chunks())
        table = pa.table({"query_id": first, "query": queries["text"].take(places), "start": starts, "end": ends})
        buckets, begin = [0], 0
        for number, end in enumerate(ends.tolist(), 1):
            if end - begin >= BUCKET_ROWS:
                buckets.append(number)
                begin = end
        if buckets[-1] != len(starts) or len(starts) == 0:
            buckets.append(len(starts))
        return cls(table, np.array(buckets, dtype=np.int64))


def _save(work: Path, labelled: pa.Table, plan: _Plan) -> None:
    """What the workers of both passes read, as files that are mapped into memory and not copied."""
    hashes = hash_ids(labelled["doc_id"]) if labelled.num_rows else np.zeros(0, dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    wanted = pa.table({"hash": hashes[order], "doc_id": labelled["doc_id"].take(pa.array(order)), "row": order})
    _write_arrow(work / "wanted.arrow", wanted)
    _write_arrow(work / "labelled.arrow", labelled)
    _write_arrow(work / "groups.arrow", plan.groups)
    np.save(work / "buckets.npy", plan.buckets)


def _write_arrow(path: Path, table: pa.Table) -> None:
    table = table.combine_chunks()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _find_in_part(work: Path, numbered: tuple[int, Path]) -> None:
    number, part = numbered
    _find_texts(work, number, read_blocks(part, CORPUS))


def _find_texts(work: Path, number: int, blocks: Iterator[pa.Table]) -> None:
    """First pass over one part: (row of LABELLED, text) of its documents that are wanted."""
    done = work / f"found-{number:06d}"
    if done.exists():
        return
    wanted = _mapped(work / "wanted.arrow")
    hashes = wanted["hash"].to_numpy()
    found: list[pa.Table] = []
    size, files = 0, 0
    for block in blocks:
        table = _matches(block, wanted, hashes)
        if table.num_rows:
            found.append(table)
            size += table.nbytes
        if size >= FLUSH_BYTES:
            _flush(work, number, files, found)
            found, size, files = [], 0, files + 1
    _flush(work, number, files, found)
    done.touch()


def _matches(block: pa.Table, wanted: pa.Table, hashes: NDArray[np.uint64]) -> pa.Table:
    ids = hash_ids(block["doc_id"])
    first, last = np.searchsorted(hashes, ids), np.searchsorted(hashes, ids, side="right")
    counts = last - first
    documents = np.repeat(np.arange(len(ids)), counts)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    places = np.repeat(first, counts) + offsets
    # Equal hashes are not yet equal ids.
    same = pc.equal(wanted["doc_id"].take(pa.array(places)), block["doc_id"].take(pa.array(documents)))
    keep = same.to_numpy().astype(bool)
    documents, places = documents[keep], places[keep]
    needed, back = np.unique(documents, return_inverse=True)
    texts = pa.array(document_texts(block.take(pa.array(needed))), pa.string())
    return pa.table([wanted["row"].take(pa.array(places)), texts.take(pa.array(back))], schema=TEXTS)


def _flush(work: Path, number: int, file: int, found: Sequence[pa.Table]) -> None:
    """One record batch a bucket, so that the second pass reads of every file no more than its bucket."""
    if not found:
        return
    table = pa.concat_tables(found).sort_by("row").combine_chunks()
    groups, buckets = _mapped(work / "groups.arrow"), np.load(work / "buckets.npy")
    starts = np.append(groups["start"].to_numpy(), groups["end"][-1].as_py())
    edges = np.searchsorted(table["row"].to_numpy(), starts[buckets])
    path = work / "texts" / f"{number:06d}-{file:03d}.arrow"
    temporary = path.with_suffix(".tmp")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, TEXTS) as writer:
        for low, high in pairwise(edges.tolist()):
            rows = table.slice(low, high - low).combine_chunks()
            writer.write_batch(
                pa.RecordBatch.from_arrays([rows[n].combine_chunks() for n in TEXTS.names], schema=TEXTS)
            )
    temporary.replace(path)


def _write_bucket(work: Path, folder: Path, finish: Finish, bucket: int) -> None:
    """Second pass: one bucket of groups, with everything that the first found for it."""
    target = folder / f"part-{bucket:05d}.parquet"
    if target.exists():
        return
    files = sorted((work / "texts").glob("*.arrow"))
    batches = [pa.ipc.open_file(pa.memory_map(str(file))).get_batch(bucket) for file in files]
    texts = pa.Table.from_batches(batches, schema=TEXTS)
    buckets = np.load(work / "buckets.npy")
    low, high = int(buckets[bucket]), int(buckets[bucket + 1])
    groups, labelled = _mapped(work / "groups.arrow").slice(low, high - low), _mapped(work / "labelled.arrow")
    write_table(assemble(groups, labelled, texts, finish), target)


def assemble(groups: pa.Table, labelled: pa.Table, texts: pa.Table, finish: Finish) -> pa.Table:
    """EXAMPLES of some groups.

    Args:
        groups: query_id, query, start and end of the group among the rows of ``labelled``.
        texts: (row of ``labelled``, text), in any order; rows without one are left out.
    """
    text_of = dict(zip(texts["row"].to_pylist(), texts["text"].to_pylist(), strict=True))
    low = groups["start"][0].as_py() if groups.num_rows else 0
    high = groups["end"][-1].as_py() if groups.num_rows else 0
    part = labelled.slice(low, high - low)
    labels, doc_ids, scores = (part[name].to_pylist() for name in ("label", "doc_id", "score"))
    columns: list[list[Any]] = [[] for _ in EXAMPLES]
    for query_id, query, start, end in zip(*(column.to_pylist() for column in groups.columns), strict=True):
        found = [
            (text_of[row], labels[row - low], doc_ids[row - low], scores[row - low])
            for row in range(start, end)
            if row in text_of
        ]
        lists = _lists(_kept(found, finish), finish)
        if lists and query is not None:
            for column, value in zip(columns, (query_id, query, *lists), strict=True):
                column.append(value)
    return pa.table(columns, schema=EXAMPLES)


def _kept(found: Sequence[tuple[Any, ...]], finish: Finish) -> list[tuple[Any, ...]]:
    """The (text, label, doc_id, score) of a group that stay."""
    if finish.drop_copies:
        found = list({document[0]: document for document in reversed(found)}.values())[::-1]
    positives = [document for document in found if document[1] > 0]
    negatives = [document for document in found if document[1] <= 0]
    if finish.negatives_a_positive is None:
        return list(found)
    return [*positives, *negatives[: finish.negatives_a_positive * len(positives)]]


def _lists(kept: list[tuple[Any, ...]], finish: Finish) -> tuple[Any, ...]:
    """documents, labels, doc_ids and scores of a group; empty where it is left out."""
    if not kept:
        return ()
    documents, labels, doc_ids, scores = (list(column) for column in zip(*kept, strict=True))
    if finish.both_sides and (max(labels) <= 0 or min(labels) > 0):
        return ()
    return documents, labels, doc_ids, scores if any(score is not None for score in scores) else None


def _clean(work: Path) -> None:
    import shutil

    shutil.rmtree(work)


def read_groups(parts: Sequence[Path]) -> pa.Table:
    """The files of :func:`group_texts` as one table, in memory."""
    return pa.concat_tables([EXAMPLES.empty_table(), *(pq.read_table(part) for part in parts)])
