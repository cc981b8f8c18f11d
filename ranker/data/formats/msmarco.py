"""MS MARCO as it is published: passages or documents, queries, judgements, candidates and triples with tabs between.

https://microsoft.github.io/msmarco/ ; a folder, a zip or any one of its files, gzipped or not.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from ranker.data.errors import DataError, Mistakes
from ranker.data.files import DataFile, DataFiles
from ranker.data.formats.left_out import say_left_out
from ranker.data.formats.msmarco_files import has_deep_learning_grades, has_header, kind_of, recognise_msmarco, split_of
from ranker.data.formats.msmarco_lines import (
    CANDIDATE,
    QUERY,
    candidate_document_pieces,
    candidate_piece,
    document_pieces,
    text_pieces,
    triple_piece,
)
from ranker.data.formats.msmarco_write import write_msmarco
from ranker.data.formats.trec import gather, parse_judgement, parse_run, ranked_once, read_qrels
from ranker.data.formats.trec_topics import Query, distinct_queries
from ranker.data.pieces import LinePiece
from ranker.data.source import FORMATS, ExampleSource, Format, Source, no_queries, no_run
from ranker.schemas import ID_TRIPLES, QRELS, RUN

log = logging.getLogger(__name__)

LAYOUT = (
    "MS MARCO holds collection.tsv or msmarco-docs.tsv, queries.train.tsv (.dev.small, .dev, .eval), qrels.train.tsv "
    "(.dev.small, .dev), and may hold top1000.dev.tsv, qidpidtriples.*.tsv or triples.*.tsv, with tabs between fields; "
    ".gz is fine"
)
MAX_TRIPLES = 1_000_000


def open_msmarco(files: DataFiles, *, max_triples: int = MAX_TRIPLES) -> Source | ExampleSource:
    """MS MARCO, or what there is of it; triples of texts alone are training examples.

    The judgements of train are the split train, those of dev.small are dev (those of dev where there are none), those
    of the Deep Learning tracks and of files that name no split are test; another name is a split of that name. All
    queries are read. In the passages of a Deep Learning track grade 1 is a passage on the topic that does not answer
    (https://arxiv.org/abs/2003.07820): where nothing but such files makes up test and a grade above 1 is in them,
    test counts from 2 on.

    Args:
        max_triples: so many of the first lines of ``qidpidtriples`` files are read for each split.

    Raises:
        DataError: where none of its files is there.
    """
    if max_triples < 0:
        raise DataError(f"max_triples is {max_triples}; it must be 0 or more")
    found: dict[str, list[DataFile]] = {}
    for name in sorted(files.entries):
        kind = kind_of(files.entries[name])
        if kind is None:
            say_left_out(files.entries[name], "MS MARCO")
        else:
            found.setdefault(kind, []).append(files.entries[name])
    if not found:
        raise DataError(f"{files.where}: no file of MS MARCO among {files.listing()}; {LAYOUT}")
    name = Path(files.where).name.removesuffix(".zip")
    texts = found.pop("texts", [])
    if not found:
        splits = _by_split(texts, "train").items()
        examples = {split: [piece for file in some for piece in text_pieces(file)] for split, some in splits}
        return ExampleSource(name, "msmarco", examples)
    if texts:
        log.warning("%s: %s is left out; open the file alone to train on it", files.where, _named(texts))
    return _source(name, found, max_triples)


def _source(name: str, found: Mapping[str, Sequence[DataFile]], max_triples: int) -> Source:
    def files(*kinds: str) -> list[DataFile]:
        return [file for kind in kinds for file in found.get(kind, ())]

    # The candidates hold the texts too, which others read from the files of their own.
    documents = files("passages", "documents") or files("candidates")
    are_documents = documents == files("candidates")
    queries = files("queries") or files("candidates")
    run = partial(_read_run, files("run"), files("candidates"), are_documents)
    qrels = _qrels_files(files("qrels"))
    graded = qrels.get("test", [])
    level = 2 if graded and all(map(has_deep_learning_grades, graded)) else 1
    return Source(
        name=name,
        format="msmarco",
        corpus=[piece for file in documents for piece in _documents(file)],
        queries=partial(_read_queries, queries) if queries else no_queries,
        qrels=partial(_read_splits, qrels),
        run=run if files("run", "candidates") else no_run,
        triples=partial(_read_triples, files("triples"), max_triples),
        relevance_levels={"test": level} if level > 1 else {},
        corpus_name=_named(documents) or "the collection",
        queries_name=_named(queries) or "the queries",
        same_id_same_text=are_documents,
    )


def _qrels_files(files: Sequence[DataFile]) -> dict[str, list[DataFile]]:
    """Files by split; of those of dev the small ones, where there are such."""
    found = _by_split(files, "test")
    small = [file for file in found.get("dev", ()) if "small" in file.name.lower()]
    if small and len(small) < len(found["dev"]):
        left_out = [file for file in found["dev"] if file not in small]
        log.info("dev is %s; %s is left out", _named(small), _named(left_out))
        found["dev"] = small
    return found


def _documents(file: DataFile) -> list[LinePiece]:
    return candidate_document_pieces(file) if kind_of(file) == "candidates" else document_pieces(file)


def _read_queries(files: Sequence[DataFile], mistakes: Mistakes) -> pa.Table:
    def queries() -> Iterator[Query]:
        for file in files:
            skipped = 1 if has_header(file) else 0
            form, text = (CANDIDATE, 2) if kind_of(file) == "candidates" else (QUERY, 1)
            # What is wrong with a line of candidates is said where they are read as such.
            noted = mistakes if form is QUERY else Mistakes(file.where)
            for line in file.lines(noted):
                if line.number > skipped and (fields := form.fields(line, noted)):
                    yield Query(fields[0], fields[text], file, line.number)

    return distinct_queries(queries(), mistakes)


def _read_splits(files: Mapping[str, Sequence[DataFile]], mistakes: Mistakes) -> dict[str, pa.Table]:
    return {
        split: read_qrels([LinePiece(f, QRELS, parse_judgement, skip_header=has_header(f)) for f in some], mistakes)
        for split, some in files.items()
    }


def _read_run(
    runs: Sequence[DataFile], candidates: Sequence[DataFile], are_documents: bool, mistakes: Mistakes
) -> pa.Table:
    pieces = [LinePiece(file, RUN, parse_run) for file in runs]
    tables = [gather(pieces, RUN, mistakes)]
    for file in candidates:
        piece = candidate_piece(file)
        pieces.append(piece)
        # What is wrong with single lines has been said where they were read as documents.
        noted = Mistakes(file.where) if are_documents else mistakes
        tables.append(ranked_in_order(gather([piece], piece.schema, noted)))
    return ranked_once(pa.concat_tables(tables), pieces, mistakes)


def ranked_in_order(pairs: pa.Table) -> pa.Table:
    """RUN of pairs of query and document: the first of a query has rank 1; the score is the rank below zero."""
    codes = pairs["query_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    position = np.arange(len(order))
    begins = np.searchsorted(codes[order], codes[order], side="left")
    ranks = np.empty(len(order), np.int32)
    ranks[order] = position - begins + 1
    return pa.table([*pairs.columns, -ranks.astype(np.float64), ranks], schema=RUN)


def _read_triples(files: Sequence[DataFile], limit: int, mistakes: Mistakes) -> dict[str, pa.Table]:
    return {split: _first_triples(split, some, limit, mistakes) for split, some in _by_split(files, "train").items()}


def _first_triples(split: str, files: Sequence[DataFile], limit: int, mistakes: Mistakes) -> pa.Table:
    taken, count = [ID_TRIPLES.empty_table()], 0
    for table in chain.from_iterable(triple_piece(file).tables(mistakes) for file in files):
        taken.append(table.slice(0, limit - count))
        count += table.num_rows
        if count > limit:
            log.warning("triples of %s: the first %d of %s are read; max_triples says so", split, limit, _named(files))
            break
    return pa.concat_tables(taken)


def _by_split(files: Sequence[DataFile], default: str) -> dict[str, list[DataFile]]:
    found: dict[str, list[DataFile]] = {}
    for file in files:
        found.setdefault(split_of(file.name, default), []).append(file)
    return found


def _named(files: Sequence[DataFile]) -> str:
    return ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")


FORMATS.register("msmarco")(Format(LAYOUT, recognise_msmarco, open_msmarco, write_msmarco))
