"""Files that hold records: JSON lines, a JSON array, Parquet, CSV, TSV."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import pyarrow as pa

from ranker.data.files import DataFile
from ranker.data.formats.csv_records import csv_pieces, sample_csv
from ranker.data.formats.json_records import json_pieces, sample_json
from ranker.data.formats.parquet_records import parquet_pieces, sample_parquet
from ranker.data.formats.record_pieces import RecordParser, Sample
from ranker.data.pieces import Piece

_PACKED = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")


def suffix_of(file: DataFile) -> str:
    """One of _PACKED (gzipped or not), or ``.parquet``; empty where it is no such file."""
    name = file.name.lower()
    suffix = PurePosixPath(name.removesuffix(".gz")).suffix
    known = _PACKED if name.endswith(".gz") else (*_PACKED, ".parquet")
    return suffix if suffix in known else ""


def sample_records(file: DataFile, names: Mapping[str, str] | None = None) -> Sample:
    """The first records of a file, none where it has none.

    Args:
        names: our name -> the column's; a CSV file is read by them.

    Raises:
        DataError: where the file is not what its name says.
    """
    suffix = suffix_of(file)
    if suffix == ".parquet":
        return sample_parquet(file)
    return sample_csv(file, names or {}) if suffix in (".csv", ".tsv") else sample_json(file)


def record_pieces(
    file: DataFile,
    schema: pa.Schema,
    parse: RecordParser,
    reads: Sequence[str],
    names: Mapping[str, str] | None = None,
) -> Sequence[Piece]:
    """A file as pieces that can be read in parallel.

    Args:
        schema: of the rows. parse: see RecordParser. reads: the columns that it looks at. names: see sample_records.

    Raises:
        DataError: where the file is not what its name says, or an array that is too large.
    """
    suffix = suffix_of(file)
    if suffix == ".parquet":
        return parquet_pieces(file, schema, parse, reads)
    if suffix in (".csv", ".tsv"):
        return csv_pieces(file, schema, parse, names or {})
    return json_pieces(file, schema, parse)
