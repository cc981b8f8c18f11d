"""Stage `index`: the corpus through a bi-encoder into vector shards, on Ray Data.

Embeddings are kept beside the index as Parquet parts. A part is written whole or not at all, so an interrupted run
goes on with the parts that are missing.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data
from numpy.typing import NDArray

from ranker.config import Experiment, IndexConfig
from ranker.manifest import Done, fingerprint_path, read_manifest, run_stage, write_json
from ranker.pretrained import resolve
from ranker.retrieval.shards import INDEX_FILE, shard_folder
from ranker.retrieval.stores import STORES
from ranker.schemas import StoredCorpus, document_texts
from ranker.session import connected, quiet_ray_data

log = logging.getLogger(__name__)

# Documents a part: small enough that an interruption costs little and that actors end together.
SMALLEST_PART = 256
PARTS = 64
# A corpus of so many is sent to the actors.
SENT_DOCUMENTS = 50_000


class Part(NamedTuple):
    """A run of documents that is encoded and stored together; never across two shards."""

    number: int
    shard: int
    start: int
    length: int


def plan_parts(num_documents: int, shard_size: int) -> list[Part]:
    """Cut a corpus into shards of ``shard_size`` and those into parts; the same numbers give the same plan."""
    size = max(SMALLEST_PART, -(-num_documents // PARTS))
    cuts = [
        (shard, start, min(size, shard_start + shard_size - start, num_documents - start))
        for shard, shard_start in enumerate(range(0, num_documents, shard_size))
        for start in range(shard_start, min(shard_start + shard_size, num_documents), size)
    ]
    return [Part(number, *cut) for number, cut in enumerate(cuts)]


def build_index(config: Experiment) -> Done:
    """Encode the corpus of stage `data` and build one vector index a shard.

    Raises:
        ranker.manifest.StageError: where `data` has not finished.
    """
    index, data = config.index, config.folder("data")
    inputs = {"data": read_manifest(data).key, "model": model_fingerprint(index.model)}
    STORES[index.store]  # an unknown name fails before hours of encoding

    def make(work: Path) -> dict[str, Any]:
        corpus = StoredCorpus(data / "corpus")
        if not corpus.num_rows:
            raise ValueError(f"{data}: the corpus is empty; check the stage data")
        parts = plan_parts(corpus.num_rows, index.shard_size)
        start = time.monotonic()
        encoded = _encode_missing(work, corpus, parts, config)
        seconds = time.monotonic() - start
        shards = [_build_shard(work, parts, shard, index) for shard in range(parts[-1].shard + 1)]
        about = _describe(work, parts, shards, index)
        return {
            "documents": corpus.num_rows,
            "shards": len(shards),
            "dimension": about["dimension"],
            "encoded": encoded,
            "documents_per_second": round(encoded / seconds, 1) if encoded else None,
        }

    return run_stage("index", config.folder("index"), index.identity(), inputs, make)


def model_fingerprint(name: str) -> str:
    """Fingerprint of a model's files; the name itself for one on the hub."""
    path = Path(resolve(name))
    return fingerprint_path(path) if path.is_dir() else str(name)


def part_file(folder: Path, part: Part) -> Path:
    """Where the embeddings of a part lie."""
    return folder / "embeddings" / f"part-{part.number:05d}.parquet"


def _encode_missing(work: Path, corpus: StoredCorpus, parts: list[Part], config: Experiment) -> int:
    (work / "embeddings").mkdir(exist_ok=True)
    missing = [part for part in parts if not part_file(work, part).is_file()]
    total = sum(part.length for part in missing)
    if len(missing) < len(parts):
        log.info("%d of %d parts are already encoded", len(parts) - len(missing), len(parts))
    if not missing:
        return 0
    by_number = {part.number: part for part in missing}
    start = last = time.monotonic()
    done = 0
    with connected(config.ray):
        for number, doc_ids, vectors in _encoded(corpus, missing, config.index):
            part = by_number[number]
            _write_part(work, part, doc_ids, vectors)
            done += part.length
            now = time.monotonic()
            if now - last > 5 or done == total:
                last = now
                log.info("encoded %d of %d documents, %.0f a second", done, total, done / (now - start))
    return total


def _encoded(
    corpus: StoredCorpus, parts: list[Part], index: IndexConfig
) -> Iterator[tuple[int, pa.ChunkedArray, NDArray[np.float32]]]:
    """Number, doc_ids and vectors of each part, in the order in which the actors finish them.

    The actors read the documents of a part themselves: no process holds more of the corpus than a file of it. A small
    corpus is sent to them, so that it may lie where only this node sees it.
    """
    quiet_ray_data()
    workers = min(index.num_workers, len(parts))
    options = (index.model, index.max_length, index.precision, index.batch_size, index.cpus_per_worker)
    stream = _parts_stream(corpus, parts).map_batches(
        EncodeDocuments,
        fn_constructor_args=(corpus.folder, *options),
        batch_size=None,  # a block is a part, which stays together
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=index.cpus_per_worker,
        num_gpus=index.gpus_per_worker or None,
        zero_copy_batch=True,
    )
    for batch in stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        table = pa.table(batch)
        numbers, vectors = np.asarray(table["part"]), _matrix(table["embedding"])
        for number in dict.fromkeys(numbers.tolist()):
            rows_of = numbers == number
            yield number, table["doc_id"].filter(pa.array(rows_of)), vectors[rows_of]


def _parts_stream(corpus: StoredCorpus, parts: list[Part]) -> ray.data.Dataset:
    """A block a part: where it lies, or its documents themselves."""
    if corpus.num_rows > SENT_DOCUMENTS:
        rows = [{"part": part.number, "start": part.start, "length": part.length} for part in parts]
        return ray.data.from_items(rows, override_num_blocks=len(rows))
    return ray.data.from_arrow([_numbered(part.number, corpus.rows(part.start, part.length)) for part in parts])


def _numbered(number: int, rows: pa.Table) -> pa.Table:
    numbers = pa.array(np.full(rows.num_rows, number, dtype=np.int32))
    return pa.table({"part": numbers, "doc_id": rows["doc_id"], "text": document_texts(rows)})


class EncodeDocuments:
    """A Ray Data actor: parts of a stored corpus, or their documents, become (part, doc_id, embedding)."""

    def __init__(
        self, corpus: Path, model: str, max_length: int | None, precision: Any, batch_size: int, cpus_per_worker: float
    ) -> None:
        from ranker.retrieval.encoder import Encoder

        self._folder = corpus
        threads = max(1, round(cpus_per_worker))
        self.encoder = Encoder(model, max_length, precision, batch_size=batch_size, threads=threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Embed the documents of some parts; rows stay in order."""
        if "text" not in batch.column_names:
            corpus, parts = StoredCorpus(self._folder), batch.to_pylist()
            batch = pa.concat_tables([_numbered(p["part"], corpus.rows(p["start"], p["length"])) for p in parts])
        vectors = self.encoder.encode_documents(batch["text"].to_pylist())
        return pa.table({"part": batch["part"], "doc_id": batch["doc_id"], "embedding": _column(vectors)})


def _column(vectors: NDArray[np.float32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    dimension = column.type.list_size
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks]) if len(column) else np.zeros(0)
    return np.asarray(flat, dtype=np.float32).reshape(-1, dimension)


def _write_part(folder: Path, part: Part, doc_ids: pa.ChunkedArray, vectors: NDArray[np.float32]) -> None:
    file = part_file(folder, part)
    if len(vectors) != part.length:
        raise RuntimeError(f"part {part.number}: {len(vectors)} vectors for {part.length} documents")
    temporary = file.with_name(f".{file.name}.tmp")
    pq.write_table(pa.table({"doc_id": doc_ids, "embedding": _column(vectors)}), temporary)
    temporary.replace(file)


def read_embeddings(folder: Path, parts: list[Part]) -> tuple[list[str], NDArray[np.float32]]:
    """Ids and vectors (n, d) of these parts, in corpus order."""
    tables = [pq.read_table(part_file(folder, part)) for part in parts]
    ids = [identifier for table in tables for identifier in table["doc_id"].to_pylist()]
    return ids, np.concatenate([_matrix(table["embedding"]) for table in tables])


def embeddings_of(folder: Path, doc_ids: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    """Vectors of these documents from a finished index folder, read part by part; unknown ids are left out."""
    wanted = pa.array(sorted(set(doc_ids)), pa.string())
    found: dict[str, NDArray[np.float32]] = {}
    for file in sorted((folder / "embeddings").glob("part-*.parquet")):
        table = pq.read_table(file)
        table = table.filter(pc.is_in(table["doc_id"], wanted))
        if table.num_rows:
            found.update(zip(table["doc_id"].to_pylist(), _matrix(table["embedding"]), strict=True))
    return found


def _build_shard(work: Path, parts: list[Part], shard: int, index: IndexConfig) -> int:
    ids, vectors = read_embeddings(work, [part for part in parts if part.shard == shard])
    store = STORES[index.store](vectors.shape[1], index.factory)
    store.add(ids, vectors)
    store.save(shard_folder(work, shard))
    log.info("shard %d: %d documents indexed with %s", shard, len(ids), index.factory)
    return len(ids)


def _describe(work: Path, parts: list[Part], shards: list[int], index: IndexConfig) -> dict[str, Any]:
    _, vectors = read_embeddings(work, parts[:1])
    about = {
        "model": index.model,
        "dimension": int(vectors.shape[1]),
        "store": index.store,
        "factory": index.factory,
        "max_length": index.max_length,
        "precision": index.precision,
        "shards": shards,
    }
    write_json(work / INDEX_FILE, about)
    return about
