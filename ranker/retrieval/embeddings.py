"""A folder of embeddings: parts as Parquet in corpus order, and beside them what tells equal texts apart."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.config import Precision
from ranker.manifest import read_manifest, write_json
from ranker.retrieval.signatures import SIGNATURE_BYTES, Hashes, Signatures

Vectors = NDArray[np.float32]
Positions = NDArray[np.int64]

ABOUT, HASHES, SIGNATURES = "embeddings.json", "hashes.npy", "signatures.npy"
# Documents a part: small enough that an interruption costs little and that actors end together.
SMALLEST_PART, LARGEST_PART, PARTS = 256, 8192, 64
PAIRS_AT_ONCE = 16_384


class Part(NamedTuple):
    """A run of documents that is encoded and stored together."""

    number: int
    start: int
    length: int


def plan_parts(num_documents: int) -> list[Part]:
    """Cut a corpus into parts; the same number of documents gives the same plan."""
    size = min(max(SMALLEST_PART, -(-num_documents // PARTS)), LARGEST_PART)
    starts = range(0, num_documents, size)
    return [Part(number, start, min(size, num_documents - start)) for number, start in enumerate(starts)]


def part_file(folder: Path, number: int) -> Path:
    """Where the embeddings of a part lie."""
    return folder / f"part-{number:05d}.parquet"


def write_part(folder: Path, part: Part, table: pa.Table) -> None:
    """Write the rows (doc_id, hash, signature, embedding) of a part, whole or not at all."""
    file = part_file(folder, part.number)
    if table.num_rows != part.length:
        raise RuntimeError(f"part {part.number}: {table.num_rows} vectors for {part.length} documents")
    temporary = file.with_name(f".{file.name}.tmp")
    pq.write_table(table, temporary, use_dictionary=False, compression="none")  # random numbers do not shrink
    temporary.replace(file)


@dataclass(frozen=True)
class Embeddings:
    """What a finished folder of embeddings holds.

    Args:
        folder: of the stage. model, max_length, precision: how a text was encoded. dimension: of the vectors.
        sizes: documents of each part.
    """

    folder: Path
    model: str
    dimension: int
    max_length: int | None
    precision: Precision
    sizes: tuple[int, ...]

    @classmethod
    def read(cls, folder: Path) -> "Embeddings":
        """Of a finished folder.

        Raises:
            ranker.manifest.StageError: where the embeddings are not finished.
        """
        read_manifest(folder)
        return cls.about(folder)

    @classmethod
    def about(cls, folder: Path) -> "Embeddings":
        """The same of a folder that may still be at work."""
        plain = json.loads((folder / ABOUT).read_text("utf-8"))
        return cls(**{**plain, "sizes": tuple(plain["sizes"]), "folder": folder})

    def write(self) -> None:
        """Say what the folder holds, in it."""
        write_json(self.folder / ABOUT, {name: value for name, value in asdict(self).items() if name != "folder"})

    @property
    def num_rows(self) -> int:
        """Documents."""
        return sum(self.sizes)

    @cached_property
    def starts(self) -> Positions:
        """Position of the first document of each part, and of what follows the last."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)

    @cached_property
    def hashes(self) -> Hashes:
        """(n,) hash of each text, mapped from the disk."""
        return np.asarray(np.load(self.folder / HASHES, mmap_mode="r"))

    @cached_property
    def signatures(self) -> Signatures:
        """(n, SIGNATURE_BYTES) min-hashes of each text, mapped from the disk."""
        return np.asarray(np.load(self.folder / SIGNATURES, mmap_mode="r"))

    def part(self, number: int) -> Vectors:
        """Vectors of one part."""
        return as_matrix(pq.read_table(part_file(self.folder, number), columns=["embedding"])["embedding"])

    def rows(self, start: int, stop: int) -> tuple[list[str], Vectors]:
        """doc_ids and vectors (stop - start, d) of these documents."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        ids: list[str] = []
        vectors = np.empty((stop - start, self.dimension), dtype=np.float32)
        for number in range(first, len(self.sizes)):
            low, high = max(start, int(self.starts[number])), min(stop, int(self.starts[number + 1]))
            if low >= high:
                break
            table = pq.read_table(part_file(self.folder, number), columns=["doc_id", "embedding"])
            table = table.slice(low - int(self.starts[number]), high - low)
            ids += table["doc_id"].to_pylist()
            vectors[low - start : high - start] = as_matrix(table["embedding"])
        return ids, vectors

    def at(self, positions: Positions) -> Iterator[tuple[Positions, Vectors]]:
        """(which of ``positions``, their vectors), a part at a time; only parts that hold some are read."""
        order = np.argsort(positions, kind="stable")
        edges = np.searchsorted(positions[order], self.starts)
        for number, (low, high) in enumerate(pairwise(edges.tolist())):
            if low < high:
                some = order[low:high]
                yield some, self.part(number)[positions[some] - self.starts[number]]

    def similarities(self, queries: Vectors, rows: Positions, positions: Positions) -> Vectors:
        """Inner products (p,) of ``queries[rows]`` with the documents at ``positions``; one pass over the parts."""
        found = np.empty(len(rows), dtype=np.float32)
        order = np.argsort(positions, kind="stable")
        edges = np.searchsorted(positions[order], self.starts)
        for number, (low, high) in enumerate(pairwise(edges.tolist())):
            if low == high:
                continue
            vectors = self.part(number)
            for start in range(low, high, PAIRS_AT_ONCE):
                some = order[start : min(start + PAIRS_AT_ONCE, high)]
                found[some] = dot(queries[rows[some]], vectors[positions[some] - self.starts[number]])
        return found


def dot(one: Vectors, other: Vectors) -> Vectors:
    """Inner products along the last axis, summed in float64: the same for a pair whatever stands beside it."""
    return np.asarray(np.einsum("...d,...d->...", one, other, dtype=np.float64), dtype=np.float32)


def finish(folder: Path, parts: list[Part], **about: Any) -> Embeddings:
    """Gather what is asked of many documents at once out of the parts, and describe the folder."""
    total = parts[-1].start + parts[-1].length
    hashes = np.lib.format.open_memmap(folder / HASHES, "w+", np.uint64, (total,))
    signatures = np.lib.format.open_memmap(folder / SIGNATURES, "w+", np.uint8, (total, SIGNATURE_BYTES))
    for part in parts:
        table = pq.read_table(part_file(folder, part.number), columns=["hash", "signature"])
        rows = slice(part.start, part.start + part.length)
        hashes[rows] = table["hash"].to_numpy()
        signatures[rows] = as_bytes(table["signature"])
    hashes.flush()
    signatures.flush()
    dimension = pq.read_schema(part_file(folder, 0)).field("embedding").type.list_size
    found = Embeddings(folder, dimension=dimension, sizes=tuple(part.length for part in parts), **about)
    found.write()
    return found


def as_column(vectors: Vectors) -> pa.FixedSizeListArray:
    """Vectors (n, d) as a column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def as_matrix(column: pa.ChunkedArray) -> Vectors:
    """A column as vectors (n, d)."""
    chunks = [chunk.flatten().to_numpy() for chunk in column.chunks]
    flat = chunks[0] if len(chunks) == 1 else np.concatenate([np.zeros(0, dtype=np.float32), *chunks])
    return np.asarray(flat, dtype=np.float32).reshape(-1, column.type.list_size)


def as_binary(signatures: Signatures) -> pa.Array:
    """Signatures (n, SIGNATURE_BYTES) as a column."""
    data = pa.py_buffer(np.ascontiguousarray(signatures))
    return pa.Array.from_buffers(pa.binary(SIGNATURE_BYTES), len(signatures), [None, data])


def as_bytes(column: pa.ChunkedArray) -> Signatures:
    """A column as signatures (n, SIGNATURE_BYTES)."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    flat = np.frombuffer(array.buffers()[1], dtype=np.uint8)
    first = array.offset * SIGNATURE_BYTES
    return flat[first : first + len(array) * SIGNATURE_BYTES].reshape(-1, SIGNATURE_BYTES)
