"""Labelled ids become EXAMPLES with their texts, in memory that does not grow with the corpus or the texts.

What is in memory is the labels, some fifty bytes a document of an example, and a few dozen megabytes of texts.

Two passes over files, each of them spread over the cores. The first reads every part of the corpus once and writes the
texts that examples want of it, cut at the borders of buckets of examples. The second puts a bucket together. The
order of the examples is that of the labels, whatever the number of parts, buckets and workers.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.config import RayConfig
from ranker.data.assembly import AS_THEY_ARE, Finish, assemble
from ranker.data.errors import DataError
from ranker.data.parts import hash_ids, write_table
from ranker.data.spread import spread
from ranker.manifest import fingerprint, write_text
from ranker.schemas import CORPUS, EXAMPLES, Corpus, StoredCorpus, document_texts, read_blocks, require

# One row a document of a group; the rows of a query follow each other. ``score``: a teacher's, or null.
LABELLED = pa.schema(
    [("query_id", pa.string()), ("doc_id", pa.string()), ("label", pa.float32()), ("score", pa.float32())]
)
TEXTS = pa.schema([("row", pa.int64()), ("text", pa.string())])

KEY = ".groups.key"
BUCKET_ROWS = 25_000
FLUSH_BYTES = 32 * 2**20


def group_texts(
    labelled: pa.Table,
    queries: pa.Table,
    corpus: Corpus,
    folder: Path,
    finish: Finish = AS_THEY_ARE,
    ray: RayConfig | None = None,
    *,
    shared: bool = True,
) -> list[Path]:
    """Write EXAMPLES to ``folder/part-NNNNN.parquet`` and return these files, in order.

    A call that was interrupted goes on in the same folder; one with other labels or documents begins anew there.

    Args:
        labelled: LABELLED. Documents that the corpus lacks are left out, and so are groups without any.
        queries: QUERIES that hold their texts.
        shared: whether every node sees ``folder``; otherwise nothing leaves this process.

    Raises:
        DataError: where the folder holds parts that another hand has written.
    """
    folder = folder.expanduser().absolute()
    labelled = require(labelled, LABELLED, "labelled documents").select(LABELLED.names).combine_chunks()
    plan = _Plan.make(labelled, queries)
    work = folder / "joining"
    work.mkdir(parents=True, exist_ok=True)
    _save(work, labelled, plan)
    _continue_or_clear(folder, work, corpus, finish)
    (work / "texts").mkdir(exist_ok=True)
    if isinstance(corpus, StoredCorpus):
        parts = list(enumerate(corpus.parts))
        total = sum(part.stat().st_size for _, part in parts)
        spread(partial(_find_in_part, work), parts, total if shared else 0, "joining texts to examples", ray)
    else:
        _find_texts(work, 0, corpus.blocks())
    size = sum(file.stat().st_size for file in (work / "texts").glob("*.arrow"))
    buckets = range(plan.num_buckets)
    spread(partial(_write_bucket, work, folder, finish), buckets, size if shared else 0, "writing groups", ray)
    shutil.rmtree(work)
    return [_part(folder, bucket) for bucket in buckets]


def _part(folder: Path, bucket: int) -> Path:
    return folder / f"part-{bucket:05d}.parquet"


def _continue_or_clear(folder: Path, work: Path, corpus: Corpus, finish: Finish) -> None:
    """Leave what an interrupted call with the same inputs has left, and nothing else."""
    key = fingerprint([_digest(file) for file in sorted(work.glob("*.arrow"))] + [str(finish), *_identity(corpus)])
    mark = folder / KEY
    if mark.is_file() and mark.read_text("utf-8") == key:
        return
    parts = list(folder.glob("part-*.parquet"))
    if parts and not mark.is_file():
        raise DataError(f"{folder}: holds {parts[0].name}, which is no part of such groups; name another folder")
    shutil.rmtree(work / "texts", ignore_errors=True)
    for file in (*parts, *work.glob("found-*")):
        file.unlink()
    write_text(mark, key)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _identity(corpus: Corpus) -> list[str]:
    """What tells one corpus from another without reading it."""
    if not isinstance(corpus, StoredCorpus):
        return [f"{id(corpus)}"]  # in memory: of this process, which starts anew after an interruption
    return [f"{part} {part.stat().st_size} {part.stat().st_mtime_ns}" for part in corpus.parts]


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
        for table in _matches(block, wanted, hashes):
            found.append(table)
            size += table.nbytes
            if size >= FLUSH_BYTES:
                _flush(work, number, files, found)
                found, size, files = [], 0, files + 1
    _flush(work, number, files, found)
    done.touch()


def _matches(block: pa.Table, wanted: pa.Table, hashes: NDArray[np.uint64]) -> Iterator[pa.Table]:
    """TEXTS of a block, some at a time: a document may be wanted by many examples."""
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
    sizes = pc.binary_length(texts).to_numpy().astype(np.int64)[back] + 16
    pieces = np.cumsum(sizes) // FLUSH_BYTES
    for some in np.split(np.arange(len(back)), np.flatnonzero(np.diff(pieces)) + 1):
        if len(some):
            rows = wanted["row"].take(pa.array(places[some]))
            yield pa.table([rows, texts.take(pa.array(back[some]))], schema=TEXTS)


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
    target = _part(folder, bucket)
    if target.exists():
        return
    files = sorted((work / "texts").glob("*.arrow"))
    batches = [pa.ipc.open_file(pa.memory_map(str(file))).get_batch(bucket) for file in files]
    texts = pa.Table.from_batches(batches, schema=TEXTS)
    buckets = np.load(work / "buckets.npy")
    low, high = int(buckets[bucket]), int(buckets[bucket + 1])
    groups, labelled = _mapped(work / "groups.arrow").slice(low, high - low), _mapped(work / "labelled.arrow")
    write_table(assemble(groups, labelled, texts, finish), target)


def read_groups(parts: Sequence[Path]) -> pa.Table:
    """The files of :func:`group_texts` as one table, in memory."""
    return pa.concat_tables([EXAMPLES.empty_table(), *(pq.read_table(part) for part in parts)])
