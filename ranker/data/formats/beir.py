"""BEIR layout: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv``; a folder or a zip, gzipped files too.

https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset
"""

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.files import DataFile, DataFiles, Line
from ranker.data.formats.json_lines import identifier_of, json_block, json_object, text_of
from ranker.data.formats.qrels import Judgements, has_header, whole_number
from ranker.data.formats.trec import read_runs, run_lines
from ranker.data.formats.trec_write import warn_of_levels
from ranker.data.pieces import LinePiece, Row, line_pieces
from ranker.data.source import FORMATS, Format, Source
from ranker.data.splits import Splits
from ranker.data.writers import WritingFolder, json_line
from ranker.schemas import CORPUS, QUERIES

RUN_FILE = "run.trec"
LAYOUT = "a BEIR data set holds corpus.jsonl, queries.jsonl and qrels/train.tsv (dev.tsv, test.tsv); .gz is fine"


def recognise_beir(files: DataFiles) -> bool:
    """Whether two of its three parts are there; the third is missed when it is opened."""
    parts = [files.get("corpus.jsonl"), files.get("queries.jsonl"), files.match("qrels/*.tsv")]
    return sum(map(bool, parts)) >= 2


def open_beir(files: DataFiles) -> Source:
    """A data set in BEIR layout, every split of it; ids stay strings, leading zeros too.

    Raises:
        DataError: naming the file that is missing.
    """
    corpus, queries = files.one("corpus.jsonl", LAYOUT), files.one("queries.jsonl", LAYOUT)
    qrels, run = files.match("qrels/*.tsv"), files.get(RUN_FILE)
    if not qrels:
        raise DataError(f"{files.where}: no qrels/*.tsv among {files.listing()}; {LAYOUT}")
    return Source(
        name=Path(files.where).name.removesuffix(".zip"),
        format="beir",
        corpus=document_pieces(corpus),
        queries=lambda mistakes: read_queries(queries, mistakes),
        qrels=lambda mistakes: {_split_name(file.name): read_qrels(file, mistakes) for file in qrels},
        run=lambda mistakes: read_runs([run], mistakes) if run else None,
        corpus_name=corpus.name,
        queries_name=queries.name,
    )


def document_pieces(file: DataFile) -> list[LinePiece]:
    """The lines of a ``corpus.jsonl`` as CORPUS."""
    return line_pieces(file, CORPUS, parse_document, parse_block=partial(parse_documents, encoding=file.encoding))


def parse_document(line: Line, mistakes: Mistakes) -> Row | None:
    """``{"_id", "title", "text"}`` as a row of CORPUS; a text that is null is an empty one, a title may be missing."""
    record = json_object(line, mistakes)
    if record is None:
        return None
    doc_id = identifier_of(record, line, mistakes)
    title = text_of({"title": "", **record}, "title", line, mistakes)
    text = text_of(record, "text", line, mistakes)
    return None if doc_id is None or title is None or text is None else (doc_id, title, text)


def parse_documents(block: bytes, encoding: str) -> pa.Table | None:
    """The same for a block of lines, where each of them is as it should be; None where one is not."""
    found = json_block(block, ("_id", "title", "text"), encoding)
    if found is None or found["_id"].null_count or found["text"].null_count:
        return None
    title = found["title"].fill_null("")
    return pa.table([found["_id"], title, found["text"]], schema=CORPUS)


def read_queries(file: DataFile, mistakes: Mistakes) -> pa.Table:
    """QUERIES of a ``queries.jsonl``."""
    texts: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for line in file.lines(mistakes):
        record = json_object(line, mistakes)
        if record is None:
            continue
        query_id, text = identifier_of(record, line, mistakes), text_of(record, "text", line, mistakes)
        if query_id in numbers:
            where = file.place(numbers[query_id])
            mistakes.add(line, f"_id {query_id!r} was already used at {where}; ids must differ")
        elif text is not None and not text.strip():
            mistakes.add(line, f'"text" of query {query_id!r} is empty; give it words or remove the line')
        elif query_id is not None and text is not None:
            texts[query_id], numbers[query_id] = text, line.number
    return pa.table([list(texts), list(texts.values())], schema=QUERIES)


def read_qrels(file: DataFile, mistakes: Mistakes) -> pa.Table:
    """QRELS of a ``qrels/SPLIT.tsv``: query-id, corpus-id, score; with the header or without."""
    judged = Judgements()
    for line in file.lines(mistakes):
        fields = line.text.split("\t")
        if line.number == 1 and len(fields) == 3 and has_header(fields):
            continue
        relevance = whole_number(fields[2]) if len(fields) == 3 else None
        if len(fields) != 3 or not fields[0].strip() or not fields[1].strip():
            mistakes.add(
                line,
                f"{len(fields)} fields in {shown(line.text)}; write query-id, corpus-id, score with tabs between",
            )
        elif relevance is None:
            mistakes.add(line, f"score {fields[2]!r} is no whole number; write 1 for relevant, 0 for not")
        else:
            judged.add(fields[0], fields[1], relevance, line, mistakes)
    return judged.table()


def write_beir(folder: Path, data: Splits, lossy: bool = False) -> None:
    """Write a data set in BEIR layout, and beside it ``run.trec``, which others do not look for.

    It cannot say ids with tabs or line feeds, nor triples; ``lossy`` leaves triples out.

    Raises:
        DataError: on what it cannot say, before anything is written.
    """
    if data.triples and not lossy:
        raise DataError(f"{folder}: BEIR layout has no place for training triples; write with --lossy to do without")
    warn_of_levels(folder, data)
    with WritingFolder(folder, data, forbidden="\t\n\r") as into:
        with into.file("corpus.jsonl") as stream:
            for row in into.documents():
                stream.write(json_line({"_id": row["doc_id"], "title": row["title"] or "", "text": row["text"] or ""}))
        with into.file("queries.jsonl") as stream:
            for row in data.queries.to_pylist():
                stream.write(json_line({"_id": row["query_id"], "text": row["text"]}))
        for split, table in data.qrels.items():
            with into.file(f"qrels/{split}.tsv") as stream:
                stream.write("query-id\tcorpus-id\tscore\n")
                for row in table.to_pylist():
                    stream.write(f"{row['query_id']}\t{row['doc_id']}\t{row['relevance']}\n")
        if data.run is not None:
            with into.file(RUN_FILE) as stream:
                stream.writelines(run_lines(data.run, "run"))


def _split_name(name: str) -> str:
    return Path(name.removesuffix(".gz")).stem


FORMATS.register("beir")(Format(LAYOUT, recognise_beir, open_beir, write_beir))


def read_beir(path: str | Path, **options: Any) -> Splits:
    """A folder or zip in BEIR layout, read into the cache; ``options`` as of :func:`ranker.data.catalog.load_splits`.

    Raises:
        DataError: naming file, line and value of the first ten mistakes, and counting all.
    """
    from ranker.data.catalog import load_splits

    return load_splits(str(path), format="beir", **options)
