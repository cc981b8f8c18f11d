"""The bytes of a log of documents: its head, its records, and how they come onto the disk."""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ranker.manifest import synchronise

MAGIC = b"RANKLOG1"
HEAD = struct.Struct("<8s8s")  # magic, generation: random, another one after a compaction
HEAD_BYTES = HEAD.size
_RECORD = struct.Struct("<QII")  # bytes that follow, their CRC-32, CRC-32 of the length
ALIGNMENT = 64  # of Arrow's buffers
PUT, DELETE = b"put", b"delete"


@dataclass(frozen=True)
class Place:
    """Where a row of the log lies: the record's first byte, its length, the row in it."""

    start: int
    length: int
    row: int


def new_head() -> bytes:
    """Of a log that no reader has seen."""
    return HEAD.pack(MAGIC, os.urandom(8))


def deletion(doc_ids: Sequence[str]) -> pa.RecordBatch:
    """What says that these documents are gone."""
    batch = pa.record_batch({"doc_id": pa.array(doc_ids, pa.string())})
    return batch.replace_schema_metadata({b"op": DELETE, b"encoder": b""})


def puts(
    doc_ids: Sequence[str], titles: Sequence[str | None], texts: Sequence[str],
    vectors: NDArray[np.float32], encoder: str,
) -> pa.RecordBatch:  # fmt: skip
    """What puts these documents, with the vectors (n, dimension) that ``encoder`` made of them."""
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    batch = pa.record_batch({
        "doc_id": pa.array(doc_ids, pa.string()),
        "title": pa.array(titles, pa.string()),
        "text": pa.array(texts, pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    })  # fmt: skip
    return batch.replace_schema_metadata({b"op": PUT, b"encoder": encoder.encode()})


def vectors_of(batch: pa.RecordBatch) -> NDArray[np.float32]:
    """float32 (n, dimension) of what was put."""
    column = batch["embedding"]
    return np.array(column.flatten(), dtype=np.float32).reshape(len(column), -1)


def encode(batch: pa.RecordBatch, start: int) -> bytes:
    """A record as it stands at byte ``start``: padding, its head, and the batch, which begins aligned."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    body = sink.getvalue().to_pybytes()
    length = struct.pack("<Q", len(body))
    padding = -(start + _RECORD.size) % ALIGNMENT
    return bytes(padding) + _RECORD.pack(len(body), zlib.crc32(body), zlib.crc32(length)) + body


def read_records(descriptor: int, start: int, end: int) -> Iterator[tuple[Place, bytes]]:
    """The whole records from ``start`` on; the first that is torn, or not yet written, ends it."""
    while True:
        head = start + (-(start + _RECORD.size) % ALIGNMENT)
        body = head + _RECORD.size
        if body > end:
            return
        length, checksum, check = _RECORD.unpack(os.pread(descriptor, _RECORD.size, head))
        if zlib.crc32(struct.pack("<Q", length)) != check or body + length > end:
            return
        content = _read(descriptor, length, body)
        if zlib.crc32(content) != checksum:
            return
        yield Place(body, length, 0), content
        start = body + length


def _read(descriptor: int, length: int, start: int) -> bytes:
    content = b""
    while len(content) < length and (more := os.pread(descriptor, length - len(content), start + len(content))):
        content += more
    return content


def write_at(descriptor: int, end: int, record: bytes) -> None:
    """Write at ``end``, behind which only a torn record can be, and synchronise."""
    os.ftruncate(descriptor, end)
    try:
        written = 0
        while written < len(record):
            written += os.pwrite(descriptor, record[written:], end + written)
    except OSError:
        os.ftruncate(descriptor, end)
        raise
    # Where this fails, the record stays: others may have read it. Its writer is told, and may send it again.
    os.fsync(descriptor)


def replace_file(file: Path, content: bytes | Iterable[bytes]) -> None:
    """Put a file with this content in the place of another, whole and synchronised; nothing is left where it fails."""
    temporary = file.with_name(f"{file.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.writelines([content] if isinstance(content, bytes) else content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    synchronise(file.parent)
