"""A saved pipeline: generations of an index in one folder, and one small file that says which of them counts.

The file is replaced by one rename, after its generation is wholly on disk: a process that is killed while it
saves leaves the last good index.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ranker.manifest import fingerprint_path, write_json
from ranker.pretrained import ModelNotFoundError, resolve
from ranker.rag.documents import Document, read_documents, write_documents
from ranker.retrieval.stores import STORES, Store

HEAD = "pipeline.json"


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
        num_documents: in the index. generation: name of the subfolder that counts.
    """

    retriever_model: str
    reranker_model: str | None
    fingerprint: str
    dimension: int
    max_length: int | None
    store: str
    num_documents: int
    generation: str = ""


def model_fingerprint(model: str) -> str:
    """Fingerprint of a model's files, so that a folder may move; of one on the hub, its name."""
    found = resolve(model)
    return fingerprint_path(Path(found)) if Path(found).is_dir() else found


def save(folder: Path, head: Head, store: Store, documents: Sequence[Document]) -> None:
    """Save a pipeline's index into ``folder``, whole or not at all.

    Raises:
        SavedIndexError: where the folder holds files that are not a saved pipeline's.
    """
    if folder.is_dir() and not (folder / HEAD).is_file():
        strangers = [entry.name for entry in folder.iterdir() if not entry.name.startswith(("index-", "."))]
        if strangers:
            raise SavedIndexError(f"{folder}: holds files that are no saved pipeline ({strangers[0]}); choose another")
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(entry.name[6:]) for entry in folder.glob("index-*") if entry.name[6:].isdigit()]
    generation = f"index-{max(numbers, default=0) + 1}"
    work = folder / generation
    work.mkdir()
    try:
        write_documents(work / "documents.parquet", documents)
        store.save(work / "store")
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    write_json(folder / HEAD, {**asdict(head), "generation": generation})
    for old in folder.glob("index-*"):
        if old.name != generation:
            shutil.rmtree(old, ignore_errors=True)


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


def load(folder: Path, head: Head) -> tuple[Store, list[Document]]:
    """The store and the documents of a saved pipeline.

    Raises:
        SavedIndexError: where they do not belong together. StoreError: where the store's files are broken.
    """
    work = folder / head.generation
    if not (work / "documents.parquet").is_file():
        raise SavedIndexError(f"{work}: the index is missing; index the documents again and save")
    store = STORES[head.store].load(work / "store")
    documents = read_documents(work / "documents.parquet")
    if len(store) != len(documents):
        raise SavedIndexError(f"{work}: {len(store)} vectors for {len(documents)} documents; index them again and save")
    return store, documents


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
