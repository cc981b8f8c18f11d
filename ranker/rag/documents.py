"""What a person hands in as documents, checked, and as the table that is saved."""

import json
from collections import Counter
from collections.abc import Collection as Sized
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ranker.rag.folders import read_folder
from ranker.schemas import Collection, require
from ranker.scoring.pairs import without_surrogates

STORED = pa.schema([("doc_id", pa.string()), ("title", pa.string()), ("text", pa.string()), ("metadata", pa.string())])
KEYS = ("id", "doc_id", "_id", "text", "title", "metadata")


class DocumentError(ValueError):
    """Documents that cannot be indexed; one line a mistake."""


@dataclass(frozen=True)
class Document:
    """A document as it was handed in.

    Args:
        doc_id: unique in the index. text, title: either may be empty.
        metadata: anything JSON can say; it comes back with the results.
    """

    doc_id: str
    text: str
    title: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def reading(self) -> str:
        """What a model reads, as ``ranker.schemas.document_texts`` puts it."""
        return f"{self.title} {self.text}".strip()

    def described(self) -> dict[str, Any]:
        """The metadata, with the title where there is one."""
        return {**self.metadata, "title": self.title} if self.title else dict(self.metadata)


# What can be indexed: a Collection, a folder, or strings and dicts.
Given = Collection | str | Path | Iterable[str | Mapping[str, Any]]


def as_documents(documents: Given, taken: Sized[str] = ()) -> list[Document]:
    """Documents from strings, mappings (``id``, ``text``, ``title``, ``metadata``), a Collection or a folder.

    Args:
        documents: strings and mappings without an id are numbered, from the first number that is free. Of a folder the
            text and Markdown files are read, see :func:`ranker.rag.folders.read_folder`.
        taken: ids that a number must not take.

    Raises:
        DocumentError: naming every document that is malformed and every id that occurs twice.
    """
    if isinstance(documents, str | Path):
        documents = _in_folder(documents)
    if isinstance(documents, Collection):
        rows = documents.corpus.select(["doc_id", "title", "text"]).to_pylist()
        return [Document(row["doc_id"], row["text"] or "", row["title"] or "") for row in rows]
    given = list(documents)
    problems = [problem for place, item in enumerate(given) if (problem := _problem(place, item))]
    if problems:
        raise _error(problems)
    named = [_identifier(item) for item in given]
    used = Counter(name for name in named if name is not None)
    repeated = {name: times for name, times in used.items() if times > 1}
    if repeated:
        raise _error([f"id {name!r} occurs {times} times; ids must be unique" for name, times in repeated.items()])
    numbers = (str(number) for number in count(len(taken)) if str(number) not in used and str(number) not in taken)
    names = [name if name is not None else next(numbers) for name in named]
    return [_document(item, name) for item, name in zip(given, names, strict=True)]


def write_documents(path: Path, documents: Sequence[Document]) -> None:
    """Write documents as Parquet."""
    columns = {
        "doc_id": [document.doc_id for document in documents],
        "title": [document.title for document in documents],
        "text": [document.text for document in documents],
        "metadata": [json.dumps(document.metadata, ensure_ascii=False) for document in documents],
    }
    pq.write_table(pa.table(columns, schema=STORED), path)


def read_documents(path: Path) -> list[Document]:
    """Read what :func:`write_documents` wrote."""
    rows = require(pq.read_table(path), STORED, str(path)).to_pylist()
    return [Document(row["doc_id"], row["text"], row["title"], json.loads(row["metadata"])) for row in rows]


def _in_folder(name: str | Path) -> list[dict[str, Any]]:
    # A string with a line break, or a very long one, is no path, and asking the system for it may fail.
    if isinstance(name, str) and ("\n" in name or len(name) > 1000 or not Path(name).expanduser().is_dir()):
        raise DocumentError(f"documents is one string ({name!r:.60}) and no folder; hand in a list of strings")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise DocumentError(f"{folder}: no such folder")
    found, problems = read_folder(folder)
    if problems:
        raise _error(problems)
    return found


def _problem(place: int, item: Any) -> str | None:
    if isinstance(item, str):
        return None
    if not isinstance(item, Mapping):
        return f"document {place} is a {type(item).__name__}; hand in strings, or dicts with id, text, title, metadata"
    unknown = sorted(set(item) - set(KEYS), key=str)
    if unknown:
        return f"document {place} has the unknown key {unknown[0]!r}; put further fields under 'metadata'"
    if not isinstance(item.get("text"), str) or not isinstance(item.get("title") or "", str):
        return f"document {place}: text must be a string, and so must a title; found {item.get('text')!r:.60}"
    metadata = item.get("metadata") or {}
    try:
        json.dumps(metadata)
    except (TypeError, ValueError) as error:
        return f"document {place}: its metadata cannot be saved as JSON: {error}"
    return None if isinstance(metadata, Mapping) else f"document {place}: metadata must be a dict"


def _identifier(item: str | Mapping[str, Any]) -> str | None:
    if isinstance(item, str):
        return None
    found = next((item[key] for key in KEYS[:3] if item.get(key) is not None), None)
    return None if found is None else str(found)


def _document(item: str | Mapping[str, Any], name: str) -> Document:
    if isinstance(item, str):
        return Document(name, without_surrogates(item))
    title, text = without_surrogates(item.get("title") or ""), without_surrogates(item["text"])
    return Document(name, text, title, dict(item.get("metadata") or {}))


def _error(problems: list[str]) -> DocumentError:
    shown = [*problems[:20], *([f"and {len(problems) - 20} more"] if len(problems) > 20 else [])]
    return DocumentError("\n".join([f"documents: {len(problems)} mistake{'s' * (len(problems) > 1)}", *shown]))
