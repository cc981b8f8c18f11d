"""Files of training examples as sources: the formats flagembedding, tevatron and sentence-transformers.

A folder, zip or file with JSON lines, Parquet, CSV or TSV in a layout of :mod:`ranker.data.formats.layouts`; a file
belongs to the split that its name says.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from ranker.data.errors import DataError, Mistakes, shown
from ranker.data.files import DataFile, DataFiles, OnInvalid, find_files
from ranker.data.formats.layouts import ID_LISTS, LAYOUTS, Layout, recognise
from ranker.data.formats.left_out import say_left_out
from ranker.data.formats.record_files import record_pieces, sample_records, suffix_of
from ranker.data.formats.tevatron_ids import is_corpus, tevatron_source
from ranker.data.pieces import Piece
from ranker.data.source import FORMATS, ExampleSource, Format, Source
from ranker.data.splits import Splits
from ranker.registry import nearest
from ranker.schemas import EXAMPLES, SPLITS

log = logging.getLogger(__name__)

# Files that are looked at to see what a folder holds.
_LOOKS = 16
# A word of a name begins there: `latest` holds no test, and `retrieval` no eval.
_SPLIT_WORDS = {"train": r"train", "dev": r"dev(?!ic)|val(?![a-z])|valid", "test": r"test|eval"}
_COLLECTION = "configs:"


def split_of(name: str) -> str | None:
    """The split that a file's name says, or that of the nearest folder around it which says one."""
    for part in reversed(name.lower().split("/")):
        for split, words in _SPLIT_WORDS.items():
            if re.search(rf"(?<![a-z])(?:{words})", part):
                return split
    return None


def example_source(
    name: str,
    files: Mapping[str, Sequence[DataFile]],
    *,
    layout: str | None = None,
    columns: Mapping[str, str] | None = None,
    format: str = "sentence-transformers",
) -> ExampleSource:
    """Training examples in files, of which only the first records are read now.

    Args:
        files: split -> its files, in their order; a file without records is one without examples.
        layout: a name in LAYOUTS. None: seen from the columns of each file. columns: our name -> the column's.

    Raises:
        DataError: naming every file that is in no known layout, or where no file holds a record.
    """
    mistakes, examples = Mistakes(name), {}
    for split, group in files.items():
        pieces: list[Piece] = []
        for file in group:
            try:
                found = _layout_of(file, layout, columns)
                if found is not None:
                    pieces += record_pieces(file, EXAMPLES, found.row, found.reads, found.names)
            except DataError as error:
                mistakes.add("" if str(error).startswith(file.where) else file.where, str(error))
        examples[split] = pieces
    mistakes.raise_if_any()
    if not any(examples.values()):
        listing = ", ".join(file.name for group in files.values() for file in group) or "no files"
        raise DataError(f"{name}: no training examples in {listing}; write one record a line")
    return ExampleSource(name, format, examples)


def _layout_of(file: DataFile, layout: str | None, columns: Mapping[str, str] | None) -> Layout | None:
    """The layout of a file's records; None where it has none."""
    sample = sample_records(file, columns)
    if not sample.columns:
        head = file.head().strip()
        if head:
            raise DataError(f"{file.where}: no record in its first lines: {shown(head)}; write one object a line")
        return None
    return recognise(sample.columns, sample.records, layout=layout, columns=columns)


def open_flagembedding(
    files: DataFiles, *, layout: str | None = None, columns: dict[str, str] | None = None
) -> ExampleSource:
    """Examples in FlagEmbedding's layout, or in the one that ``layout`` names.

    Raises:
        DataError: see :func:`example_source`.
    """
    return _examples(files, "flagembedding", layout or "flagembedding", columns)


def open_tevatron(
    files: DataFiles, *, layout: str | None = None, columns: dict[str, str] | None = None
) -> Source | ExampleSource:
    """Examples in Tevatron's layout; a collection where they are ids, and the documents lie beside them.

    Raises:
        DataError: see :func:`example_source`, and :func:`ranker.data.formats.tevatron_ids.tevatron_source`.
    """
    found = {file.name: _columns_of(file, columns) for file in _record_files(files)}
    theirs = [(columns or {}).get(name, name) for name in ID_LISTS]
    if not any(name in names for names in found.values() for name in theirs):
        return _examples(files, "tevatron", layout or "tevatron", columns)
    judged = [files.entries[file] for file, names in found.items() if any(name in names for name in theirs)]
    corpus = [files.entries[file] for file, names in found.items() if is_corpus(names)]
    others = [files.entries[file] for file in found if files.entries[file] not in (*judged, *corpus)]
    if wrong := [file.name for file in others if _must_be_examples(file)]:
        raise DataError(f"{files.where}: {wrong} hold neither of {theirs}, as other files do; move them elsewhere")
    _say_ignored(file.name for file in others)
    return tevatron_source(_name(files), corpus, _by_split(judged), columns or {})


def open_sentence_transformers(
    files: DataFiles, *, layout: str | None = None, columns: dict[str, str] | None = None
) -> ExampleSource:
    """Examples in any layout, each file in its own, or all in the one that ``layout`` names.

    Raises:
        DataError: see :func:`example_source`.
    """
    return _examples(files, "sentence-transformers", layout, columns)


def _examples(files: DataFiles, format: str, layout: str | None, columns: Mapping[str, str] | None) -> ExampleSource:
    candidates = _record_files(files)
    if not candidates:
        raise DataError(f"{files.where}: no .jsonl, .parquet, .csv or .tsv among {files.listing()}")
    for name in sorted(files.entries.keys() - {file.name for file in candidates}):
        say_left_out(files.entries[name], "training examples")
    # What is called train, dev or test must be examples; another file may be anything, and is if it is like those.
    named = [file for file in candidates if _must_be_examples(file)]
    kinds = {file.name: _kind_of(file, layout, columns) for file in candidates}
    wanted = ({kinds[file.name] for file in named} or {*kinds.values()}) - {None}
    kept = [file for file in candidates if file in named or kinds[file.name] in wanted] or candidates
    _say_ignored(file.name for file in candidates if file not in kept)
    return example_source(_name(files), _by_split(kept), layout=layout, columns=columns, format=format)


def _kind_of(file: DataFile, layout: str | None, columns: Mapping[str, str] | None) -> tuple[str, str] | None:
    """What is the same of two files with the same layout; None where there is none."""
    try:
        found = None if _is_note(file) else _layout_of(file, layout, columns)
    except DataError:
        return None
    return None if found is None else (found.name, type(found.build).__name__)


def _is_note(file: DataFile) -> bool:
    """Whether a ``.json`` holds a single object, as tools write it beside data (``dataset_info.json``)."""
    return suffix_of(file) == ".json" and split_of(file.name) is None and len(sample_records(file).records) < 2


def _must_be_examples(file: DataFile) -> bool:
    # A tool's trainer_state.json is one object over many lines.
    return split_of(file.name) is not None and (suffix_of(file) != ".json" or bool(_columns_of(file, None)))


def _say_ignored(names: Iterable[str]) -> None:
    for name in names:
        level = logging.INFO if name.lower().endswith(".json") else logging.WARNING
        log.log(level, "%s: not read, it holds no training examples", name)


def _columns_of(file: DataFile, columns: Mapping[str, str] | None) -> list[str]:
    try:
        return sample_records(file, columns).columns
    except DataError:
        return []


def _record_files(files: DataFiles) -> list[DataFile]:
    """In name order."""
    return [files.entries[name] for name in sorted(files.entries) if suffix_of(files.entries[name])]


def _by_split(files: Sequence[DataFile]) -> dict[str, list[DataFile]]:
    groups: dict[str, list[DataFile]] = {}
    for file in files:
        groups.setdefault(split_of(file.name) or "train", []).append(file)
    return {split: groups[split] for split in SPLITS if split in groups}


def _name(files: DataFiles) -> str:
    name = Path(files.where).name
    return re.sub(r"(\.(jsonl|json|parquet|csv|tsv|zip))?(\.gz)?$", "", name) or name


def why_no_examples(files: DataFiles) -> str:
    """What keeps the one file of records from being training examples; empty where there are none, or several."""
    records = _record_files(files)
    if len(records) != 1:
        return ""
    try:
        found = _layout_of(records[0], None, None)
    except DataError as error:
        return str(error).partition("; known layouts are")[0]
    return "" if found else f"{records[0].where}: holds no record"


def recognise_examples(format: str, files: DataFiles) -> bool:
    """Whether the first file with a known layout is in this format; what a hub snapshot says of its files wins."""
    readme = files.get("README.md")
    if readme is not None and _COLLECTION in readme.head():
        return False
    candidates = sorted(_record_files(files), key=lambda file: (split_of(file.name) is None, file.name))
    for file in candidates[:_LOOKS]:
        if len(files.entries) > 1 and _is_note(file):
            continue
        try:
            sample = sample_records(file)
            if any(name in sample.columns for name in ID_LISTS):
                return format == "tevatron"
            found = recognise(sample.columns, sample.records).name if sample.columns else None
        except DataError:
            continue
        if found is not None:
            return format == (found if found in FORMATS else "sentence-transformers")
    return False


def read_examples(
    path: str | Path,
    *,
    layout: str | None = None,
    columns: dict[str, str] | None = None,
    encoding: str = "utf-8",
    on_invalid: OnInvalid = "error",
    split: str | None = None,
) -> pa.Table:
    """The training examples of a folder, zip or file as EXAMPLES, all in memory.

    Args:
        layout: a name in LAYOUTS. None: seen from the columns. columns: our name -> the column's, such as
            ``{"query": "question"}``. encoding, on_invalid: see :class:`ranker.data.files.DataFile`.
        split: only this one; ``train`` is also the only one that there is, whatever its name. None: all of them,
            train first.

    Raises:
        DataError: naming the first ten mistakes with file, line, value and remedy, and counting all.
    """
    files = find_files(Path(path).expanduser()).read_as(encoding, on_invalid)
    source = _examples(files, "sentence-transformers", layout, columns)
    if split == "train" and len(source.examples) == 1:  # a file of its own, whatever its name
        split = None
    if split is not None and split not in source.examples:
        raise DataError(f"{path}: no split {split!r}; {nearest(split, list(source.examples))}")
    mistakes = Mistakes(str(path))
    wanted = [pieces for name, pieces in source.examples.items() if split in (None, name)]
    tables = [table for pieces in wanted for piece in pieces for table in piece.tables(mistakes)]
    mistakes.raise_if_any()
    return pa.concat_tables([EXAMPLES.empty_table(), *tables])


def _write(name: str, folder: Path, data: Splits, lossy: bool) -> None:
    from ranker.data.formats.example_writers import write_examples
    from ranker.data.labels import judged_examples

    write_examples(folder, name, judged_examples(data), lossy)


_OTHERS = "with other columns say the format, and which is which with the option columns"
_FILES = "JSONL, Parquet, CSV or TSV, one file a split (train.jsonl, dev.jsonl)"
for _each, _open, _layout in (
    ("flagembedding", open_flagembedding, LAYOUTS["flagembedding"]),
    ("tevatron", open_tevatron, f"{LAYOUTS['tevatron']}; or {', '.join(ID_LISTS)} with a corpus beside them"),
    ("sentence-transformers", open_sentence_transformers, f"{LAYOUTS['sentence-transformers']}; {_OTHERS}"),
):
    FORMATS.register(_each)(
        Format(f"{_FILES}: {_layout}", partial(recognise_examples, _each), _open, partial(_write, _each))
    )
