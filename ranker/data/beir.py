"""BEIR layout: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv``; a folder or a zip, gzipped files too.

https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.files import DataFiles, OpenFile, open_files
from ranker.data.splits import Splits, sample_splits
from ranker.schemas import CORPUS, QRELS, QUERIES

LAYOUT = "a BEIR data set holds corpus.jsonl, queries.jsonl and qrels/train.tsv (dev.tsv, test.tsv); .gz is fine"
_ID_NAMES = ("_id", "doc_id", "query_id", "id")


def read_beir(
    path: str | Path,
    *,
    max_documents: int | None = None,
    max_queries: int | None = None,
    seed: int = 0,
    drop_missing: bool = False,
) -> Splits:
    """A data set in BEIR layout, every split of it; ids stay strings, leading zeros too.

    Args:
        path: folder, or zip with the files at its top or in one folder.
        max_documents, max_queries: seeded sample, see :func:`ranker.data.splits.sample_splits`.
        seed: of the sample.
        drop_missing: drop judgements of queries or documents that are not there instead of refusing them.

    Raises:
        DataError: naming file, line and value of the first ten mistakes, and counting all.
    """
    with open_files(Path(path).expanduser()) as files:
        mistakes = Mistakes(str(path))
        corpus = _read_corpus(files, mistakes)
        queries = _read_queries(files, mistakes)
        qrels = {_split_name(file.name): _read_qrels(file, mistakes) for file in _qrels_files(files)}
        mistakes.raise_if_any()
    qrels = _checked_judgements(str(path), corpus, queries, qrels, drop_missing)
    name = Path(path).name.removesuffix(".zip")
    return sample_splits(Splits(name, corpus, queries, qrels), max_documents, max_queries, seed)


def write_beir(folder: Path, corpus: pa.Table, queries: pa.Table, qrels: Mapping[str, pa.Table]) -> None:
    """Write CORPUS, QUERIES and QRELS by split in BEIR layout."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8", newline="\n") as stream:
        for row in corpus.select(CORPUS.names).to_pylist():
            record = {"_id": row["doc_id"], "title": row["title"] or "", "text": row["text"] or ""}
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
    with (folder / "queries.jsonl").open("w", encoding="utf-8", newline="\n") as stream:
        for row in queries.select(QUERIES.names).to_pylist():
            stream.write(json.dumps({"_id": row["query_id"], "text": row["text"]}, ensure_ascii=False) + "\n")
    for split, table in qrels.items():
        with (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8", newline="\n") as stream:
            stream.write("query-id\tcorpus-id\tscore\n")
            for row in table.select(QRELS.names).to_pylist():
                stream.write(f"{row['query_id']}\t{row['doc_id']}\t{row['relevance']}\n")


def _qrels_files(files: DataFiles) -> list[OpenFile]:
    found = files.match("qrels/*.tsv")
    if not found:
        raise DataError(f"{files.where}: no qrels/*.tsv among {files.listing()}; {LAYOUT}")
    return found


def _split_name(name: str) -> str:
    return Path(name.removesuffix(".gz")).stem


def _records(file: OpenFile, mistakes: Mistakes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and object of every line that is JSON."""
    for place, line in file.lines(mistakes):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            mistakes.add(place, f"not JSON ({error.msg}, column {error.colno}): {shown(line)}; write one object a line")
            continue
        if isinstance(record, dict):
            yield place, record
        else:
            mistakes.add(place, f'holds {shown(record)}; write an object such as {{"_id": "7", "text": "..."}}')


def _identifier(record: dict[str, Any], place: str, seen: dict[str, str], mistakes: Mistakes) -> str | None:
    name = next((name for name in _ID_NAMES if name in record), None)
    if name is None:
        mistakes.add(place, f'no "_id" among {list(record)}; give every line its own "_id"')
        return None
    value = record[name]
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        mistakes.add(place, f'{name} is {shown(value)}; it must be a string that is not empty, such as "007"')
        return None
    identifier = str(value)
    if identifier in seen:
        mistakes.add(place, f"{name} {identifier!r} was already used at {seen[identifier]}; ids must differ")
        return None
    seen[identifier] = place
    return identifier


def _text(record: dict[str, Any], name: str, place: str, mistakes: Mistakes) -> str | None:
    value = record.get(name)
    if value is None and name == "title":
        return ""
    if isinstance(value, str):
        return value
    found = f"is {shown(value)}" if name in record else f"is missing among {list(record)}"
    mistakes.add(place, f'"{name}" {found}; it must be a string')
    return None


def _read_corpus(files: DataFiles, mistakes: Mistakes) -> pa.Table:
    doc_ids, titles, texts = [], [], []
    seen: dict[str, str] = {}
    for place, record in _records(files.one("corpus.jsonl", LAYOUT), mistakes):
        doc_id = _identifier(record, place, seen, mistakes)
        title, text = _text(record, "title", place, mistakes), _text(record, "text", place, mistakes)
        if doc_id is not None and title is not None and text is not None:
            doc_ids.append(doc_id)
            titles.append(title)
            texts.append(text)
    if not doc_ids and not mistakes.count:
        mistakes.add("corpus.jsonl", "holds no document; write one JSON object a line")
    return pa.table([doc_ids, titles, texts], schema=CORPUS)


def _read_queries(files: DataFiles, mistakes: Mistakes) -> pa.Table:
    query_ids, texts = [], []
    seen: dict[str, str] = {}
    for place, record in _records(files.one("queries.jsonl", LAYOUT), mistakes):
        query_id, text = _identifier(record, place, seen, mistakes), _text(record, "text", place, mistakes)
        if text is not None and not text.strip():
            mistakes.add(place, f'"text" of query {query_id!r} is empty; give it words or remove the line')
        elif query_id is not None and text is not None:
            query_ids.append(query_id)
            texts.append(text)
    return pa.table([query_ids, texts], schema=QUERIES)


def _read_qrels(file: OpenFile, mistakes: Mistakes) -> pa.Table:
    judged: dict[tuple[str, str], tuple[int, str]] = {}
    for number, (place, line) in enumerate(file.lines(mistakes)):
        fields = line.split("\t")
        if number == 0 and len(fields) == 3 and _whole(fields[2]) is None:
            continue  # the header
        relevance = _whole(fields[2]) if len(fields) == 3 else None
        if len(fields) != 3 or not fields[0].strip() or not fields[1].strip():
            mistakes.add(
                place, f"{len(fields)} fields in {shown(line)}; write query-id, corpus-id, score with tabs between"
            )
        elif relevance is None:
            mistakes.add(place, f"score {fields[2]!r} is no whole number; write 1 for relevant, 0 for not")
        else:
            key = (fields[0], fields[1])
            first, where = judged.setdefault(key, (relevance, place))
            if first != relevance:
                mistakes.add(place, f"{key} has score {relevance} here and {first} at {where}; keep one of them")
    columns = [[q for q, _ in judged], [d for _, d in judged], [relevance for relevance, _ in judged.values()]]
    return pa.table(columns, schema=QRELS)


def _whole(text: str) -> int | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _checked_judgements(
    where: str, corpus: pa.Table, queries: pa.Table, qrels: dict[str, pa.Table], drop_missing: bool
) -> dict[str, pa.Table]:
    """The judgements whose query and document exist; an error that counts and names the others."""
    known = {"query_id": set(queries["query_id"].to_pylist()), "doc_id": set(corpus["doc_id"].to_pylist())}
    mistakes, kept = Mistakes(where), {}
    for split, table in qrels.items():
        good = [True] * table.num_rows
        for column, file in (("query_id", "queries.jsonl"), ("doc_id", "corpus.jsonl")):
            present = [identifier in known[column] for identifier in table[column].to_pylist()]
            lost = sorted({i for i, there in zip(table[column].to_pylist(), present, strict=True) if not there})
            if lost and not drop_missing:
                some = ", ".join(map(repr, lost[:5])) + (", ..." if len(lost) > 5 else "")
                mistakes.add(
                    f"qrels/{split}",
                    f"{len(lost)} judged {column}s are not in {file}: {some}; add them, or drop these "
                    "judgements with data.options.drop_missing=true",
                )
            good = [a and b for a, b in zip(good, present, strict=True)]
        kept[split] = table.filter(pa.array(good, pa.bool_()))
    mistakes.raise_if_any()
    return kept
