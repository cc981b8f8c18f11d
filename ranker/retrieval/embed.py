"""Stage `embed`: every document of the corpus through a bi-encoder, on Ray Data, into Parquet parts.

A part is written whole or not at all, so that an interrupted run goes on with the parts that are missing. Where an
older folder of the same encoder lies in the same place, only texts that it does not hold are encoded.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray

from ranker.config import Experiment, IndexConfig
from ranker.manifest import MANIFEST, Done, fingerprint_path, read_manifest, run_stage
from ranker.pretrained import named_anywhere, resolve
from ranker.retrieval.embeddings import (
    Embeddings,
    Part,
    Positions,
    Vectors,
    as_binary,
    as_bytes,
    as_column,
    as_matrix,
    finish,
    part_file,
    plan_parts,
    write_part,
)
from ranker.retrieval.signatures import hash_texts, sign_texts
from ranker.schemas import StoredCorpus, document_texts
from ranker.session import connected, quiet_ray_data

log = logging.getLogger(__name__)

# A corpus of so many documents is sent to the actors.
SENT_DOCUMENTS = 50_000
SECONDS_BETWEEN_LINES = 5.0
DECIDES = ("model", "max_length", "precision")


@dataclass(frozen=True)
class Task:
    """What of a part must be encoded: these of its rows (None: all)."""

    part: Part
    rows: NDArray[np.int32] | None = None

    @property
    def num_rows(self) -> int:
        """Documents to encode."""
        return self.part.length if self.rows is None else len(self.rows)


def embeddings_folder(config: Experiment) -> Path:
    """Where the embeddings of an experiment lie."""
    named = config.index.embeddings_dir
    return Path(named or Path(config.output_dir) / "embeddings").expanduser().absolute()


def embed(config: Experiment) -> Done:
    """Encode the corpus of stage `data`.

    Raises:
        ranker.manifest.StageError: where `data` has not finished. ValueError: on an empty corpus.
    """
    index, data, folder = config.index, config.folder("data"), embeddings_folder(config)
    inputs = {"data": read_manifest(data).key, "model": model_fingerprint(index.model)}
    identity = {name: value for name, value in index.identity().items() if name in DECIDES}

    def make(work: Path) -> Mapping[str, Any]:
        corpus = StoredCorpus(data / "corpus")
        if not corpus.num_rows:
            raise ValueError(f"{data}: the corpus is empty; check the stage data")
        parts = plan_parts(corpus.num_rows)
        start = time.monotonic()
        encoded = _encode_missing(work, corpus, parts, config, _older(folder, identity, inputs["model"]))
        seconds = time.monotonic() - start
        model = named_anywhere(index.model)
        found = finish(work, parts, model=model, max_length=index.max_length, precision=index.precision)
        return {
            "documents": corpus.num_rows,
            "dimension": found.dimension,
            "encoded": encoded,
            "documents_per_second": round(encoded / seconds, 1) if encoded else None,
        }

    return run_stage("embed", folder, identity, inputs, make)


def model_fingerprint(name: str) -> str:
    """Fingerprint of a model's files; the name itself for one on the hub."""
    path = Path(resolve(name))
    return fingerprint_path(path) if path.is_dir() else str(name)


def _older(folder: Path, identity: Mapping[str, Any], model: str) -> Embeddings | None:
    """The embeddings of an earlier corpus that the same encoder has left in this place."""
    if not (folder / MANIFEST).is_file():
        return None
    found = read_manifest(folder)
    if found.stage != "embed" or found.config != dict(identity) or found.inputs.get("model") != model:
        return None
    return Embeddings.read(folder)


def _encode_missing(
    work: Path, corpus: StoredCorpus, parts: list[Part], config: Experiment, older: Embeddings | None
) -> int:
    missing = [part for part in parts if not part_file(work, part.number).is_file()]
    if len(missing) < len(parts):
        log.info("%d of %d parts are already encoded", len(parts) - len(missing), len(parts))
    if not missing:
        return 0
    places = _places(corpus, older) if older else None
    tasks = [_task(part, places) for part in missing]
    total = sum(task.num_rows for task in tasks)
    if places is not None:
        log.info("%d texts are embedded already, %d are new", sum(part.length for part in missing) - total, total)
    for task in tasks:
        if not task.num_rows:
            _write(work, corpus, task, None, older, places)
    todo = {task.part.number: task for task in tasks if task.num_rows}
    if not todo:
        return 0
    progress = _Progress(total)
    with connected(config.ray):
        for number, table in _encoded(corpus, list(todo.values()), config.index):
            _write(work, corpus, todo[number], table, older, places)
            progress.add(table.num_rows)
    return total


class _Progress:
    """A line some seconds apart."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._start = self._last = time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._last > SECONDS_BETWEEN_LINES or self._done == self._total:
            self._last = now
            rate = self._done / max(now - self._start, 1e-9)
            log.info("encoded %d of %d documents, %.0f a second", self._done, self._total, rate)


def _places(corpus: StoredCorpus, older: Embeddings) -> Positions:
    """For each document the position of the same text in older embeddings, -1 for a new one."""
    order = np.argsort(older.hashes, kind="stable")
    known = older.hashes[order]
    found = []
    for block in corpus.blocks():
        hashes = hash_texts(document_texts(block))
        nearest = np.searchsorted(known, hashes).clip(max=len(known) - 1)
        found.append(np.where(known[nearest] == hashes, order[nearest], -1))
    return np.concatenate(found).astype(np.int64)


def _task(part: Part, places: Positions | None) -> Task:
    if places is None:
        return Task(part)
    new = np.flatnonzero(places[part.start : part.start + part.length] < 0)
    return Task(part) if len(new) == part.length else Task(part, new.astype(np.int32))


def _write(
    work: Path,
    corpus: StoredCorpus,
    task: Task,
    encoded: pa.Table | None,
    older: Embeddings | None,
    places: Positions | None,
) -> None:
    """A part of what was encoded now, and of what was embedded before."""
    if task.rows is None and encoded is not None:
        write_part(work, task.part, encoded)
        return
    if older is None or places is None:
        raise AssertionError(task)
    part = task.part
    documents = corpus.rows(part.start, part.length)
    texts = document_texts(documents)
    vectors = np.empty((part.length, older.dimension), dtype=np.float32)
    signatures = np.empty((part.length, older.signatures.shape[1]), dtype=np.uint8)
    mine = places[part.start : part.start + part.length]
    old = np.flatnonzero(mine >= 0)
    signatures[old] = older.signatures[mine[old]]
    for some, found in older.at(mine[old]):
        vectors[old[some]] = found
    if encoded is not None and task.rows is not None:
        vectors[task.rows] = as_matrix(encoded["embedding"])
        signatures[task.rows] = as_bytes(encoded["signature"])
    table = _as_table(documents["doc_id"], hash_texts(texts), signatures, vectors)
    write_part(work, part, table)


def _as_table(doc_ids: pa.ChunkedArray, hashes: Any, signatures: Any, vectors: Vectors) -> pa.Table:
    columns = [doc_ids, pa.array(hashes), as_binary(signatures), as_column(vectors)]
    return pa.table(columns, names=["doc_id", "hash", "signature", "embedding"])


def _encoded(corpus: StoredCorpus, tasks: list[Task], index: IndexConfig) -> Iterator[tuple[int, pa.Table]]:
    """Number and rows of each part, in the order in which the actors finish them.

    The actors read the documents of a part themselves: no process holds more of the corpus than a file of it. A small
    corpus is sent to them, so that it may lie where only this node sees it. An actor or a node that is lost is
    replaced, and its part encoded again.
    """
    quiet_ray_data()
    options = (named_anywhere(index.model), index.max_length, index.precision, index.batch_size, index.cpus_per_worker)
    stream = _stream(corpus, tasks).map_batches(
        EncodeDocuments,
        fn_constructor_args=(corpus.folder, *options),
        batch_size=None,  # a block is a part, which stays together
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(index.num_workers, len(tasks))),
        num_cpus=index.cpus_per_worker,
        num_gpus=index.gpus_per_worker or None,
        zero_copy_batch=True,
    )
    for batch in stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        table = pa.table(batch)
        numbers = np.asarray(table["part"])
        for number in dict.fromkeys(numbers.tolist()):
            yield number, table.filter(pa.array(numbers == number)).drop_columns(["part"])


def _stream(corpus: StoredCorpus, tasks: Sequence[Task]) -> ray.data.Dataset:
    """A block a part: where it lies, or its documents themselves."""
    if corpus.num_rows > SENT_DOCUMENTS:
        rows = [
            {
                "part": task.part.number,
                "start": task.part.start,
                "length": task.part.length,
                "rows": [] if task.rows is None else task.rows.tolist(),
            }
            for task in tasks
        ]
        return ray.data.from_items(rows, override_num_blocks=len(rows))
    return ray.data.from_arrow([_documents_of(corpus, task.part, task.rows) for task in tasks])


def _documents_of(corpus: StoredCorpus, part: Part, wanted: NDArray[np.int32] | None) -> pa.Table:
    rows = corpus.rows(part.start, part.length)
    if wanted is not None:
        rows = rows.take(pa.array(wanted))
    numbers = pa.array(np.full(rows.num_rows, part.number, dtype=np.int32))
    return pa.table({"part": numbers, "doc_id": rows["doc_id"], "text": document_texts(rows)})


class EncodeDocuments:
    """A Ray Data actor: parts of a stored corpus, or their documents, become (part, doc_id, …, embedding)."""

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
            corpus = StoredCorpus(self._folder)
            batch = pa.concat_tables([_read_task(corpus, task) for task in batch.to_pylist()])
        texts = batch["text"].to_pylist()
        vectors = self.encoder.encode_documents(texts)
        table = _as_table(batch["doc_id"], hash_texts(texts), sign_texts(texts), vectors)
        return table.add_column(0, "part", batch["part"])


def _read_task(corpus: StoredCorpus, task: Mapping[str, Any]) -> pa.Table:
    rows = np.asarray(task["rows"], dtype=np.int32) if task["rows"] else None
    return _documents_of(corpus, Part(task["part"], task["start"], task["length"]), rows)
