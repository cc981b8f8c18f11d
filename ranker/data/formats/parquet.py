"""Collections as Parquet: the stored form, and any folder of ``corpus``, ``queries`` and ``qrels`` in Parquet.

Column names are those of CORPUS, QUERIES and QRELS, or those of BEIR (``_id``, ``query-id``, ``corpus-id``, ``score``).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.files import DataFile, DataFiles
from ranker.data.parts import write_table
from ranker.data.source import FORMATS, Format, Source
from ranker.data.splits import Splits
from ranker.data.stored import ABOUT
from ranker.data.writers import WritingFolder
from ranker.manifest import write_json
from ranker.schemas import BLOCK_ROWS, CORPUS, ID_TRIPLES, QRELS, QUERIES, RUN, SchemaError, read_blocks, require

LAYOUT = "corpus.parquet (or a folder corpus/), queries.parquet and qrels/SPLIT.parquet"
# Our name -> the names that others use for the column, in the order in which they are looked for.
NAMES: Mapping[str, tuple[str, ...]] = {
    "doc_id": ("doc_id", "corpus-id", "corpus_id", "docid", "_id", "id", "pid"),
    "query_id": ("query_id", "query-id", "qid", "_id", "id"),
    "text": ("text", "query", "passage", "contents", "document_text"),
    "title": ("title",),
    "relevance": ("relevance", "score", "label"),
}
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def recognise_parquet(files: DataFiles) -> bool:
    """Whether there are documents or queries in Parquet."""
    return bool(_files(files, "corpus"))


def open_parquet(files: DataFiles) -> Source:
    """A collection in Parquet; row groups are read in parallel.

    Raises:
        DataError: where there are no documents.
    """
    corpus = _files(files, "corpus")
    if not corpus:
        raise DataError(f"{files.where}: no corpus.parquet among {files.listing()}; a collection holds {LAYOUT}")
    triples = {_stem(file): [file] for file in files.match("triples/*.parquet")}
    run, about = files.get("run.parquet"), files.get(ABOUT)
    levels = json.loads(about.head()).get("relevance_levels", {}) if about else {}
    return Source(
        name=Path(files.where).name.removesuffix(".zip"),
        format="parquet",
        corpus=parquet_corpus(corpus),
        queries=lambda mistakes: parquet_table(_files(files, "queries"), QUERIES, mistakes),
        qrels=lambda mistakes: {
            split: parquet_table(group, QRELS, mistakes) for split, group in _by_split(files, "qrels").items()
        },
        run=lambda mistakes: parquet_table([run], RUN, mistakes) if run else None,
        triples=lambda mistakes: {s: parquet_table(group, ID_TRIPLES, mistakes) for s, group in triples.items()},
        relevance_levels=levels,
        corpus_name=corpus[0].name,
        queries_name="queries.parquet",
    )


def parquet_corpus(files: Sequence[DataFile]) -> list["ParquetCorpus"]:
    """Pieces of the documents in these files, in their order, one a file.

    Raises:
        DataError: where a file lies in a zip.
    """
    for file in files:
        if file.member:
            raise DataError(f"{file.where}: Parquet inside a zip cannot be read in parts; unpack the zip")
    return [ParquetCorpus(file.path) for file in files]


@dataclass(frozen=True)
class ParquetCorpus:
    """The documents of one Parquet file."""

    path: str

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        return Path(self.path).stat().st_size

    def tables(self, mistakes: Mistakes) -> Iterator[pa.Table]:
        """CORPUS, a block at a time; a text or a title that is null is empty, an id that is null is a mistake."""
        row = 0
        for table in _blocks(self.path, CORPUS, mistakes):
            bad = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(table["doc_id"]), ""), True).to_pylist()
            for place in (position for position, is_bad in enumerate(bad) if is_bad):
                value = table["doc_id"][place].as_py()
                problem = f"doc_id is {shown(value)}; it must be a string that is not empty"
                mistakes.add(f"{self.path}, row {row + place + 1}", problem)
            row += table.num_rows
            filled = [table["doc_id"], *(table[name].fill_null("") for name in ("title", "text"))]
            yield pa.table(filled, schema=CORPUS).filter(pc.invert(pa.array(bad, pa.bool_())))

    def places(self, doc_ids: set[str]) -> Iterator[tuple[str, str]]:
        """Number of the row in the file."""
        row = 0
        for table in _blocks(self.path, CORPUS, Mistakes(self.path)):
            for number, doc_id in enumerate(table["doc_id"].to_pylist(), row + 1):
                if doc_id in doc_ids:
                    yield doc_id, f"{self.path}, row {number}"
            row += table.num_rows


def parquet_table(files: Sequence[DataFile], schema: pa.Schema, mistakes: Mistakes) -> pa.Table:
    """The rows of some files as one table of the type ``schema``; nulls, and keys that occur twice, are mistakes."""
    tables = [schema.empty_table()]
    for file in files:
        row = 0
        try:
            for table in _blocks(file.path, schema, mistakes):
                tables.append(_filled(table.select(schema.names), f"{file.path}, row", row, mistakes))
                row += table.num_rows
        except SchemaError as error:
            mistakes.add("", str(error))
    return distinct(pa.concat_tables(tables), ", ".join(file.name for file in files), mistakes)


def _filled(table: pa.Table, place: str, before: int, mistakes: Mistakes) -> pa.Table:
    """The rows without a null, or an id or a query that is blank; the others are mistakes."""
    whole = np.ones(table.num_rows, dtype=bool)
    for name in table.column_names:
        values = table[name]
        is_text = pa.types.is_string(values.type)
        blank = pc.equal(pc.utf8_trim_whitespace(values), "") if is_text else values.is_null()
        empty = pc.fill_null(blank, True).to_numpy()
        for row in np.flatnonzero(empty).tolist():
            mistakes.add(f"{place} {before + row + 1}", f"{name} is {values[row].as_py()!r}; it must not be blank")
        whole &= ~empty
    return table if whole.all() else table.filter(pa.array(whole))


def distinct(table: pa.Table, where: str, mistakes: Mistakes) -> pa.Table:
    """The rows without repetitions of the same; others of the same ids are mistakes. Triples may repeat."""
    keys = {QUERIES: ["query_id"], QRELS: ["query_id", "doc_id"], RUN: ["query_id", "doc_id"]}.get(table.schema)
    if keys is None:
        return table
    frame = table.to_pandas()
    repeated = frame.duplicated(keys)
    for row in frame[repeated & ~frame.duplicated()].to_dict("records"):
        named = " and ".join(f"{key} {row[key]!r}" for key in keys)
        mistakes.add(where, f"{named} occur again with another value; keep one")
    return table.filter(pa.array(~repeated.to_numpy()))


def _blocks(path: str, schema: pa.Schema, mistakes: Mistakes) -> Iterator[pa.Table]:
    try:
        found = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        mistakes.add(path, f"not a readable Parquet file ({error}); write it again")
        return
    names = {ours: _column(ours, found.names) for ours in schema.names}
    absent = [ours for ours, theirs in names.items() if theirs is None and ours not in ("title", "relevance")]
    if absent:
        known = {ours: NAMES.get(ours, (ours,)) for ours in absent}
        mistakes.add(path, f"no column for {absent} among {found.names}; known names are {known}")
        return
    wanted = pa.schema([found.field(theirs) for theirs in names.values() if theirs is not None])
    for block in read_blocks(Path(path), wanted, BLOCK_ROWS):
        columns = {ours: block[theirs] for ours, theirs in names.items() if theirs is not None}
        if "title" in schema.names and names["title"] is None:
            columns["title"] = pa.array([""] * block.num_rows, pa.string())
        if "relevance" in schema.names and names["relevance"] is None:  # NanoBEIR's lists hold relevant ones only
            columns["relevance"] = pa.array([1] * block.num_rows, pa.int32())
        yield require(pa.table(columns), schema, path).select(schema.names)


def _column(ours: str, found: Sequence[str]) -> str | None:
    return next((name for name in NAMES.get(ours, (ours,)) if name in found), None)


def _files(files: DataFiles, noun: str) -> list[DataFile]:
    """``noun.parquet``, ``noun-00000-of-00003.parquet`` or all of ``noun/``."""
    return files.match(f"{noun}.parquet", f"{noun}-*-of-*.parquet", f"{noun}/*.parquet")


def _by_split(files: DataFiles, noun: str) -> dict[str, list[DataFile]]:
    groups: dict[str, list[DataFile]] = {}
    for file in files.match(f"{noun}/*.parquet", f"{noun}.parquet"):
        groups.setdefault("test" if "/" not in file.name else _stem(file), []).append(file)
    return groups


def _stem(file: DataFile) -> str:
    return _SHARD.sub("", Path(file.name).stem)


def write_parquet(folder: Path, data: Splits, lossy: bool = False) -> None:
    """Write a data set as Parquet; there is nothing that it cannot say."""
    with WritingFolder(folder, data) as into:
        path = into.path("corpus/part-00000.parquet")
        with pq.ParquetWriter(path, CORPUS, compression="zstd", use_dictionary=False) as writer:
            for block in data.corpus.blocks():
                writer.write_table(block)
        write_table(data.queries.select(QUERIES.names), into.path("queries.parquet"))
        for split, table in data.qrels.items():
            write_table(table.select(QRELS.names), into.path(f"qrels/{split}.parquet"))
        for split, table in data.triples.items():
            write_table(table.select(ID_TRIPLES.names), into.path(f"triples/{split}.parquet"))
        if data.run is not None:
            write_table(data.run.select(RUN.names), into.path("run.parquet"))
        if data.relevance_levels:
            write_json(into.path(ABOUT), {"name": data.name, "relevance_levels": dict(data.relevance_levels)})


FORMATS.register("parquet")(Format(LAYOUT, recognise_parquet, open_parquet, write_parquet))
