"""A saved pipeline: generations of an index in one folder, and one small file that says which of them counts.

The file is replaced by one rename, after its generation is wholly on disk: a process that is killed while it
saves leaves the last good index.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from ranker.manifest import fingerprint_path, synchronise, write_json
from ranker.pretrained import ModelNotFoundError, resolve
from ranker.rag.documents import read_documents, write_documents
from ranker.rag.library import Library
from ranker.rag.passages import Passage
from ranker.retrieval.stores import STORES
from ranker.schemas import require

log = logging.getLogger(__name__)

HEAD, LOCK = "pipeline.json", ".lock"
PASSAGES = pa.schema(
    [("key", pa.string()), ("doc_id", pa.string()), ("start", pa.int64()), ("end", pa.int64())]
)  # fmt: skip


class IndexMismatchError(ValueError):
    """A saved index that the pipeline's model cannot search."""


class SavedIndexError(ValueError):
    """A folder that holds no whole saved pipeline."""


@dataclass(frozen=True)
class Head:
    """What a saved pipeline says of itself.

    Args:
        retriever_model, reranker_model: as the user named them. fingerprint: of the retriever's files.
        dimension: of the vectors. max_length: of the retriever's inputs. store: name in STORES.
        num_documents, num_passages: in the index. settings: further arguments of the constructor.
        generation: name of the subfolder that counts.
    """

    retriever_model: str
    reranker_model: str | None
    fingerprint: str
    dimension: int
    max_length: int | None
    store: str
    num_documents: int
    num_passages: int
    settings: dict[str, Any] = field(default_factory=dict)
    generation: str = ""


def model_fingerprint(model: str) -> str:
    """Fingerprint of a model's files, so that a folder may move; of one on the hub, its name."""
    found = resolve(model)
    return fingerprint_path(Path(found)) if Path(found).is_dir() else found


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` and let one process at a time save into it.

    Raises:
        SavedIndexError: where the folder holds files that are not a saved pipeline's.
    """
    if folder.is_dir() and not (folder / HEAD).is_file():
        # HEAD too may be there by now: another process saves here for the first time.
        ours = ("index-", ".", HEAD)
        strangers = [entry.name for entry in folder.iterdir() if not entry.name.startswith(ours)]
        if strangers:
            raise SavedIndexError(f"{folder}: holds files that are no saved pipeline ({strangers[0]}); choose another")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        yield


def save(folder: Path, head: Head, library: Library) -> str:
    """Save a pipeline's index into ``folder``, whole or not at all; its generation. The folder is :func:`locked`."""
    numbers = [int(entry.name[6:]) for entry in folder.glob("index-*") if entry.name[6:].isdigit()]
    generation = f"index-{max(numbers, default=0) + 1}"
    work = folder / generation
    work.mkdir()
    try:
        write_documents(work / "documents.parquet", list(library.documents.values()))
        _write_passages(work / "passages.parquet", library)
        library.store.save(work / "store")
        _to_disk(work)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    synchronise(folder)
    write_json(folder / HEAD, {**asdict(head), "generation": generation})
    synchronise(folder)
    for old in folder.glob("index-*"):
        if old.name != generation:
            shutil.rmtree(old, ignore_errors=True)
    return generation


def _write_passages(path: Path, library: Library) -> None:
    passages = library.passages.values()
    columns = {name: [getattr(passage, name) for passage in passages] for name in PASSAGES.names}
    pq.write_table(pa.table(columns, schema=PASSAGES), path)


def _to_disk(folder: Path) -> None:
    # Before the file that names them: a machine that loses its power keeps the last good index too.
    for entry in folder.rglob("*"):
        synchronise(entry)
    synchronise(folder)


def generation(folder: Path) -> str | None:
    """The generation that counts in ``folder``; None where nothing whole is saved."""
    try:
        return read_head(folder).generation
    except SavedIndexError:
        return None


def read_head(folder: Path) -> Head:
    """What is saved in ``folder``.

    Raises:
        SavedIndexError: where nothing whole is.
    """
    file = folder / HEAD
    if not file.is_file():
        raise SavedIndexError(f"{folder}: no saved pipeline (no {HEAD}); save one with RAGPipeline.save")
    try:
        plain: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return Head(**plain)
    except (ValueError, TypeError) as error:
        raise SavedIndexError(f"{file}: not a saved pipeline ({error}); save it again") from error


def load(folder: Path, head: Head, secrets: Mapping[str, Any]) -> tuple[Library, str]:
    """The library of a saved pipeline, and its generation: the newest one, if another was saved meanwhile.

    Args:
        folder: that was saved into. head: its file. secrets: options of the store that are not saved.

    Raises:
        SavedIndexError: where its parts do not belong together. StoreError: where the store's files are broken.
    """
    while True:
        now = read_head(folder)
        if (now.store, now.fingerprint, now.dimension) != (head.store, head.fingerprint, head.dimension):
            raise SavedIndexError(f"{folder}: an index of another model or store was saved meanwhile; load it again")
        try:
            return _read(folder, now, secrets), now.generation
        except (ValueError, OSError):
            if generation(folder) in (None, now.generation):
                raise
            log.info("%s: %s was replaced while it was read", folder, now.generation)


def _read(folder: Path, head: Head, secrets: Mapping[str, Any]) -> Library:
    work = folder / head.generation
    if not (work / "documents.parquet").is_file():
        raise SavedIndexError(f"{work}: the index is missing; index the documents again and save")
    library = Library(STORES[head.store].load(work / "store", **secrets))
    rows = require(pq.read_table(work / "passages.parquet"), PASSAGES, str(work / "passages.parquet")).to_pylist()
    library.restore(read_documents(work / "documents.parquet"), [Passage(**row) for row in rows])
    found = len(library.passages)
    if len(library.documents) != head.num_documents or found != head.num_passages:
        raise SavedIndexError(f"{work}: {len(library.documents)} documents for {head.num_documents}; index them again")
    if not library.complete():
        vectors = len(library.store)
        raise SavedIndexError(f"{work}: {vectors} vectors for {found} passages; index the documents again and save")
    return library


def check_model(head: Head, retriever_model: str) -> None:
    """Refuse to search an index with another model than the one that made it.

    Raises:
        IndexMismatchError: naming both models.
    """
    try:
        found = model_fingerprint(retriever_model)
    except ModelNotFoundError as error:
        raise IndexMismatchError(f"the index was made with {head.retriever_model!r}: {error}") from error
    if found != head.fingerprint:
        raise IndexMismatchError(
            f"the index was made with the retriever {head.retriever_model!r} (dimension {head.dimension}), not with "
            f"{retriever_model!r}; load it with that one, or index the documents again"
        )


def check_dimension(head: Head, retriever_model: str, dimension: int) -> None:
    """Refuse vectors of another length.

    Raises:
        IndexMismatchError: naming both models and dimensions.
    """
    if dimension != head.dimension:
        raise IndexMismatchError(
            f"the index was made with {head.retriever_model!r} and has dimension {head.dimension}; "
            f"{retriever_model!r} gives {dimension}; index the documents again"
        )
