"""The texts behind an index: what the reranker reads of each document that the retriever finds."""

from pathlib import Path

from ranker.manifest import StageError, read_manifest
from ranker.schemas import CORPUS, document_texts, read_table


def read_texts(corpus: Path, index: Path | None = None) -> dict[str, str]:
    """doc_id -> text of a data folder; with ``index``, also that the index was built from this very folder.

    Raises:
        StageError: where the folder is not finished, or is not the one that the index was built from.
    """
    key = read_manifest(corpus).key
    if index is not None and key not in (inputs := read_manifest(index).inputs).values():
        raise StageError(
            f"{index}: built from other documents than {corpus} (inputs {inputs}, this data has the key {key}); "
            "build the index again, or name the data folder that it was built from (corpus: ... in args)"
        )
    table = read_table(corpus / "corpus", CORPUS)
    return dict(zip(table["doc_id"].to_pylist(), document_texts(table), strict=True))
