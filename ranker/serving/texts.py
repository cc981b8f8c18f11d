"""The texts behind an index, mapped from disk: what the reranker reads of each document that the retriever finds."""

import logging
import os
from pathlib import Path

import pyarrow as pa
from filelock import FileLock

from ranker.data.catalog import cache_folder
from ranker.manifest import StageError, read_manifest
from ranker.schemas import document_texts
from ranker.schemas.corpus import Corpus, StoredCorpus

log = logging.getLogger(__name__)

BLOCK = 4096


class Texts:
    """Texts by position in the corpus, in an Arrow file that is mapped: only what is read takes memory.

    Args:
        file: as :func:`map_texts` writes it.
    """

    def __init__(self, file: Path) -> None:
        self._source = pa.memory_map(str(file))
        reader = pa.ipc.open_file(self._source)
        self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._length = sum(batch.num_rows for batch in self._batches)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> str:
        block, row = divmod(position, BLOCK)
        return str(self._batches[block]["text"][row].as_py())

    def doc_id(self, position: int) -> str:
        """The id of the document there."""
        block, row = divmod(position, BLOCK)
        return str(self._batches[block]["doc_id"][row].as_py())


def map_texts(corpus: Path, index: Path | None = None, cache: Path | None = None) -> Texts:
    """The texts of a data folder; with ``index``, also that the index was built from this very folder.

    They are written once a machine, below ``cache`` (None: the cache of read sources), as a file that can be mapped.

    Raises:
        StageError: where the folder is not finished, or is not the one that the index was built from.
        ranker.data.source.DataError: where nothing can be written into the cache.
    """
    key = read_manifest(corpus).key
    if index is not None and key not in (inputs := read_manifest(index).inputs).values():
        raise StageError(
            f"{index}: built from other documents than {corpus} (inputs {inputs}, this data has the key {key}); "
            "build the index again, or name the data folder that it was built from (corpus: ... in args)"
        )
    folder = cache or cache_folder().with_name("texts")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{key}.arrow"
    with FileLock(folder / f"{key}.lock"):
        if not file.is_file():
            _write(StoredCorpus(corpus / "corpus"), file)
    return Texts(file)


def _write(corpus: Corpus, file: Path) -> None:
    schema = pa.schema([("doc_id", pa.string()), ("text", pa.string())])
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    rows = 0
    try:
        with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            waiting = schema.empty_table()
            for block in corpus.blocks():
                table = pa.table({"doc_id": block["doc_id"], "text": document_texts(block)}, schema=schema)
                waiting = pa.concat_tables([waiting, table])
                whole = waiting.num_rows - waiting.num_rows % BLOCK
                if whole:
                    writer.write_table(waiting.slice(0, whole).combine_chunks(), max_chunksize=BLOCK)
                waiting, rows = waiting.slice(whole), rows + table.num_rows
            if waiting.num_rows:
                writer.write_table(waiting.combine_chunks(), max_chunksize=BLOCK)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    log.info("%s: %d texts", file, rows)
