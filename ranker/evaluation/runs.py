"""Measure and compare run files of any tool: what stands behind ``ranker evaluate`` and ``ranker compare``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from ranker.data.formats import read_trec_qrels, read_trec_run
from ranker.evaluation.comparison import compare_runs, compare_with_first
from ranker.measures import DEFAULT_MEASURES
from ranker.schemas import QRELS, RUN, SchemaError, read_table, require


def open_run(path: str | Path) -> pa.Table:
    """RUN from a TREC run file, or from Parquet when the name ends in ``.parquet``.

    Raises:
        FileNotFoundError: where there is no such file. SchemaError, ValueError: where it is no run, with the line.
    """
    file = _existing(path, "run")
    return read_table(file, RUN) if file.suffix == ".parquet" else read_trec_run(file)


def open_qrels(path: str | Path) -> pa.Table:
    """QRELS from a TREC qrels file, a BEIR one (``.tsv`` with its header), or Parquet (``.parquet``).

    Raises:
        FileNotFoundError: where there is no such file. SchemaError, ValueError: where it holds no judgements.
    """
    file = _existing(path, "qrels")
    if file.suffix == ".parquet":
        return read_table(file, QRELS)
    return _read_beir(file) if file.suffix == ".tsv" else read_trec_qrels(file)


def _read_beir(file: Path) -> pa.Table:
    names = {"query-id": "query_id", "corpus-id": "doc_id", "score": "relevance"}
    # Ids stay text: 007 is not 7.
    options = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    try:
        table = csv.read_csv(file, parse_options=csv.ParseOptions(delimiter="\t"), convert_options=options)
    except pa.ArrowInvalid as error:
        raise SchemaError(f"{file}: not a BEIR qrels file: {error}") from error
    return require(table.rename_columns([names.get(name, name) for name in table.column_names]), QRELS, str(file))


def evaluate_files(
    run: str | Path, qrels: str | Path, measures: str | Sequence[str] = DEFAULT_MEASURES
) -> dict[str, Any]:
    """Means and counts of one run file as plain values: ``{"means": {measure: value}, "num_queries": ...}``.

    Raises:
        FileNotFoundError, SchemaError, MeasureError: for the files and the names. ValueError: without judgements.
    """
    name = Path(run).stem
    comparison = compare_runs({name: open_run(run)}, open_qrels(qrels), _names(measures))
    plain = comparison.as_dict()
    return {"means": plain["means"][name], "num_queries": len(comparison.query_ids), **plain["counts"][name]}


def compare_files(
    runs: Sequence[str | Path],
    qrels: str | Path,
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    *,
    permutations: int = 10_000,
    seed: int = 13,
) -> dict[str, Any]:
    """Every later run file tested against the first, the baseline, as plain values.

    ``{"baseline": name, "means": {run: {measure: value}}, "counts": ..., "significance": {run: {measure: test}}}``,
    runs named after their files, p-values of a measure corrected for the number of runs.

    Raises:
        ValueError: for fewer than two runs. Otherwise as :func:`evaluate_files`.
    """
    if len(runs) < 2:
        raise ValueError(f"comparing needs two run files or more, got {len(runs)}; measure one with evaluate_files")
    files = [Path(run) for run in runs]
    stems = [file.stem for file in files]
    # Files of one name in several folders, and one file given twice, stay apart.
    names = stems if len(set(stems)) == len(stems) else [f"{row + 1}:{file}" for row, file in enumerate(files)]
    tables = {name: open_run(file) for name, file in zip(names, files, strict=True)}
    plain = compare_with_first(tables, open_qrels(qrels), _names(measures), permutations=permutations, seed=seed)
    return {"baseline": names[0], **plain}


def _names(measures: str | Sequence[str]) -> tuple[str, ...]:
    return (measures,) if isinstance(measures, str) else tuple(measures)


def _existing(path: str | Path, noun: str) -> Path:
    file = Path(path).expanduser()
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such {noun} file")
    return file
