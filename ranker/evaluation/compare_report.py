"""The report of `ranker compare`: runs of any tool, with the texts of a collection where one is named."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ranker.evaluation.report import Report, write_report
from ranker.evaluation.runs import ComparedFiles
from ranker.manifest import write_json
from ranker.measures import parse
from ranker.schemas import Collection


def write_comparison(
    folder: Path,
    compared: ComparedFiles,
    plain: dict[str, Any],
    *,
    source: str | None = None,
    runs: Sequence[str] = (),
    qrels: str = "",
) -> None:
    """Write ``comparison.json``, ``report.html``, ``report.md`` and its pictures into ``folder``.

    Args:
        source: collection that gives texts of queries and documents. None: ids only.
        runs, qrels: files, as the page says how to do it again.

    Raises:
        ranker.data.DataError: for a source that cannot be read.
    """
    collection = None if source is None else _whole(source, compared)
    folder.mkdir(parents=True, exist_ok=True)
    comparison, how = compared.comparison, compared.how
    facts = {
        "experiment": f"{' and '.join(list(comparison.scores)[:3])}{' ...' if len(comparison.scores) > 3 else ''}",
        "collection": source or Path(qrels).name,
        "num_queries": len(comparison.query_ids),
        "num_documents": None if collection is None else collection.documents.num_rows,
        "relevance_level": how.relevance_level,
    }
    steps = _steps(compared, runs, qrels)
    write_json(folder / "comparison.json", {**facts, **plain})
    write_report(folder, Report(facts, comparison, compared.runs, compared.qrels, collection, steps=steps))


def _whole(source: str, compared: ComparedFiles) -> Collection:
    from ranker.data.catalog import load_splits

    splits = load_splits(source)
    return Collection(splits.name, "all", splits.corpus, splits.queries, compared.qrels)


def _steps(compared: ComparedFiles, runs: Sequence[str], qrels: str) -> tuple[str, ...]:
    how, comparison = compared.how, compared.comparison
    official = " ".join(shlex.quote(str(parse(measure, how.relevance_level))) for measure in how.measures)
    words = ["ranker", "compare", *runs, "--qrels", qrels]
    words += [word for measure in how.measures for word in ("--measure", measure)]
    words += ["--relevance-level", str(how.relevance_level)] if how.relevance_level != 1 else []
    words += ["--ties", how.ties] if how.ties != "score" else []
    words += ["--baseline", comparison.baseline] if comparison.baseline != next(iter(comparison.scores)) else []
    words += ["--all-pairs"] if comparison.tested == "all" else []
    words += ["--correction", comparison.correction] if comparison.correction != "holm" else []
    same = [f"ir_measures {shlex.quote(qrels)} {shlex.quote(run)} {official}" for run in runs]
    return ("# the same figures from each run alone", *same, "# the same comparison", shlex.join(words))
