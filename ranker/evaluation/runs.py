"""Measure and compare run files of any tool: what stands behind ``ranker evaluate`` and ``ranker compare``."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.errors import DataError, Mistakes
from ranker.data.files import DataFile, Line
from ranker.data.formats import read_trec_qrels, read_trec_run
from ranker.data.formats.beir import read_qrels
from ranker.data.formats.trec import ranked_once
from ranker.data.formats.trec_blocks import parse_ranking_block
from ranker.data.pieces import LinePiece, Row
from ranker.evaluation.changes import changes_as_dict, most_changed
from ranker.evaluation.comparison import Comparison, Pairs, compare_runs
from ranker.evaluation.significance import Correction
from ranker.measures import DEFAULT_MEASURES, Scores, Ties, evaluate_run, parse, tie_range
from ranker.schemas import QRELS, RUN, SchemaError, read_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measuring:
    """How files are measured.

    Args:
        measures: names as typed; the first decides.
        relevance_level: from which judgement on binary measures count a document as relevant (2 in TREC DL).
        ties: as :func:`ranker.measures.evaluate_run` takes it; ``score``: as trec_eval and ir_measures do.

    Raises:
        MeasureError: on an unknown measure.
    """

    measures: tuple[str, ...] = DEFAULT_MEASURES
    relevance_level: int = 1
    ties: Ties = "score"

    def __post_init__(self) -> None:
        for measure in self.measures:
            parse(measure, self.relevance_level)


def open_run(path: str | Path) -> pa.Table:
    """RUN from a TREC run file, from MS MARCO's ``qid docid rank``, or from Parquet (``.parquet``); ``.gz`` too.

    Raises:
        FileNotFoundError: where there is no such file. SchemaError, DataError: where it is no run, with the line.
    """
    path = _existing(path, "run")
    if path.suffix == ".parquet":
        return read_table(path, RUN)
    file = DataFile(path.name, str(path))
    if len(_first_line(file).split()) == 3:
        mistakes = Mistakes(str(path))
        pieces = [LinePiece(file, RUN, parse_ranking, parse_block=parse_ranking_block)]
        tables = [RUN.empty_table(), *pieces[0].tables(mistakes)]
        run = ranked_once(pa.concat_tables(tables), pieces, mistakes)
        mistakes.raise_if_any()
        return run
    return read_trec_run(path)


def parse_ranking(line: Line, mistakes: Mistakes) -> Row | None:
    """``qid docid rank`` as a row of RUN; the score is what falls with the rank."""
    fields = line.text.split()
    if len(fields) != 3 or not fields[2].isdecimal():
        mistakes.add(line.place, f"{line.text!r:.80}: write qid docid rank, or qid Q0 docid rank score tag")
        return None
    return fields[0], fields[1], -float(fields[2]), int(fields[2])


def open_qrels(path: str | Path) -> pa.Table:
    """QRELS from a TREC file (``qid 0 docid rel``), a BEIR one (three fields with tabs), or Parquet; ``.gz`` too.

    Raises:
        FileNotFoundError: where there is no such file. SchemaError, DataError: where it holds no judgements, with the
        line.
    """
    path = _existing(path, "qrels")
    if path.suffix == ".parquet":
        return read_table(path, QRELS)
    file = DataFile(path.name, str(path))
    if len(_first_line(file).split("\t")) == 3:
        mistakes = Mistakes(str(path))
        qrels = read_qrels(file, mistakes)
        mistakes.raise_if_any()
    else:
        qrels = read_trec_qrels(path)
    if not qrels.num_rows:
        raise DataError(f"{path}: holds no judgement; write qid 0 docid relevance, one a line")
    return qrels


def evaluate_files(
    run: str | Path,
    qrels: str | Path,
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    *,
    relevance_level: int = 1,
    ties: Ties = "score",
    per_query: bool = False,
) -> dict[str, Any]:
    """Means and counts of one run file as plain values.

    ``{"run": name, "means": {measure: value}, "num_queries": ..., "counts": ..., ...}``;
    where equal scores could change a mean ``tie_range``, measure -> lowest and highest; with ``per_query`` the values
    of every judged query.

    Args:
        relevance_level, ties: see :class:`Measuring`.

    Raises:
        FileNotFoundError, SchemaError, DataError, MeasureError: for the files and the names.
    """
    how = Measuring(_names(measures), relevance_level, ties)
    table, judged = open_run(run), open_qrels(qrels)
    _check_judged(table, judged, str(run))
    scores = evaluate_run(table, judged, how.measures, relevance_level=relevance_level, ties=ties)
    found = {
        "run": run_name(run),
        "means": scores.means,
        "num_queries": scores.counts.queries,
        "counts": scores.counts.as_dict(),
        "relevance_level": relevance_level,
        "ties": ties,
    }
    if moved := _moved_by_ties(table, judged, scores, relevance_level):
        found["tie_range"] = moved
    if per_query:
        values = {name: column.tolist() for name, column in scores.values.items()}
        found["per_query"] = {
            query_id: {name: values[name][row] for name in values} for row, query_id in enumerate(scores.query_ids)
        }
    return found


def _moved_by_ties(run: pa.Table, qrels: pa.Table, scores: Scores, level: int) -> dict[str, list[float]]:
    """Measure -> lowest and highest mean that another order of equal scores gives, where that is another one."""
    if not scores.counts.tied_documents:
        return {}
    ranges = tie_range(run, qrels, scores, relevance_level=level)
    return {name: list(ends) for name, ends in ranges.items() if ends[1] - ends[0] > 1e-12}


@dataclass(frozen=True)
class ComparedFiles:
    """Runs with their judgements, measured and tested."""

    comparison: Comparison
    runs: dict[str, pa.Table]
    qrels: pa.Table
    how: Measuring

    def as_dict(self, num_changed: int = 5) -> dict[str, Any]:
        """Plain values: ``baseline``, ``means``, ``counts``, ``significance``, ``tests`` and ``changed``.

        Where equal scores could change a mean, ``tie_range``: run -> measure -> lowest and highest.
        """
        plain, moved = self.comparison.as_dict(), self.tie_ranges()
        ties = {"tie_range": moved} if moved else {}
        return {"baseline": self.comparison.baseline, **plain, **ties, "changed": self.changed(num_changed)}

    def tie_ranges(self) -> dict[str, dict[str, list[float]]]:
        """Run -> measure -> the lowest and the highest mean that its equal scores allow; of runs where they differ."""
        scores, level = self.comparison.scores, self.how.relevance_level
        moved = {name: _moved_by_ties(run, self.qrels, scores[name], level) for name, run in self.runs.items()}
        return {name: ranges for name, ranges in moved.items() if ranges}

    def changed(self, count: int) -> dict[str, Any]:
        """Run -> the ``count`` queries that rose and fell most against the baseline, with the documents that moved."""
        comparison = self.comparison
        others = [name for name in comparison.scores if name != comparison.baseline] if count else []
        return {
            name: changes_as_dict(*most_changed(comparison, self.runs, self.qrels, system=name, count=count))
            for name in others
        }


def compare_files(
    runs: Sequence[str | Path],
    qrels: str | Path,
    measures: str | Sequence[str] = DEFAULT_MEASURES,
    *,
    baseline: str | None = None,
    pairs: Pairs = "first",
    correction: Correction = "holm",
    relevance_level: int = 1,
    ties: Ties = "score",
    permutations: int = 10_000,
    seed: int = 13,
    num_changed: int = 5,
) -> dict[str, Any]:
    """Run files of any tool against one another, as plain values; see :func:`open_comparison`.

    ``{"baseline": name, "means": {run: {measure: value}}, "counts": ..., "significance": {run: {measure: test}},
    "tests": [...], "changed": {run: {"better": [...], "worse": [...]}}}``.
    """
    how = Measuring(_names(measures), relevance_level, ties)
    compared = open_comparison(
        runs, qrels, how, baseline=baseline, pairs=pairs, correction=correction, permutations=permutations, seed=seed
    )
    return compared.as_dict(num_changed)


def open_comparison(
    runs: Sequence[str | Path],
    qrels: str | Path,
    how: Measuring = Measuring(),
    *,
    baseline: str | None = None,
    pairs: Pairs = "first",
    correction: Correction = "holm",
    permutations: int = 10_000,
    seed: int = 13,
) -> ComparedFiles:
    """Every run file tested against the baseline, or all pairs of them; runs are named after their files.

    Args:
        baseline: name of a run. None: the first.
        pairs, correction, permutations, seed: as :func:`ranker.evaluation.comparison.compare_runs` takes them.

    Raises:
        ValueError: for fewer than two runs, an unknown baseline. Otherwise as :func:`evaluate_files`.
    """
    if len(runs) < 2:
        raise ValueError(f"comparing needs two run files or more, got {len(runs)}; measure one with evaluate_files")
    stems = [run_name(run) for run in runs]
    # Files of one name in several folders, and one file given twice, stay apart.
    names = stems if len(set(stems)) == len(stems) else [f"{row + 1}:{run}" for row, run in enumerate(runs)]
    judged = open_qrels(qrels)
    tables = {name: open_run(run) for name, run in zip(names, runs, strict=True)}
    for name, table in tables.items():
        _check_judged(table, judged, name)
    _warn_of_gaps(tables, judged)
    comparison = compare_runs(
        tables,
        judged,
        how.measures,
        relevance_level=how.relevance_level,
        permutations=permutations,
        seed=seed,
        pairs=pairs,
        baseline=baseline,
        correction=correction,
        ties=how.ties,
    )
    return ComparedFiles(comparison, tables, judged, how)


def run_name(path: str | Path) -> str:
    """``runs/bm25.trec.gz`` -> ``bm25``."""
    name = Path(path).name.removesuffix(".gz")
    return Path(name).stem or name


def _warn_of_gaps(tables: Mapping[str, pa.Table], qrels: pa.Table) -> None:
    asked = len(qrels["query_id"].unique())
    for name, table in tables.items():
        held = pc.sum(pc.is_in(table["query_id"].unique(), qrels["query_id"].unique())).as_py()
        if held < asked:
            log.warning("%s: holds %d of %d judged queries; the others count as 0", name, held, asked)


def _check_judged(run: pa.Table, qrels: pa.Table, name: str) -> None:
    """Raises SchemaError where the run is empty, or where these are not its judgements."""
    if not run.num_rows:
        raise SchemaError(f"{name}: holds no line; write qid Q0 docid rank score tag, one a document")
    if pc.any(pc.is_in(run["query_id"].unique(), qrels["query_id"].unique())).as_py():
        return
    ours, theirs = run["query_id"][0].as_py(), qrels["query_id"][0].as_py()
    raise SchemaError(
        f"{name}: none of its {len(run['query_id'].unique())} queries is judged; its ids are like {ours!r}, those of "
        f"the judgements like {theirs!r}; give the judgements of these queries"
    )


def _names(measures: str | Sequence[str]) -> tuple[str, ...]:
    return (measures,) if isinstance(measures, str) else tuple(measures)


def _first_line(file: DataFile) -> str:
    return next((line for line in file.head().splitlines() if line.strip()), "")


def _existing(path: str | Path, noun: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such {noun} file")
    return file
