"""A registered data set read from a copy of it: what is known of the data set, on the files of whatever format."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ranker.data.errors import DataError, Mistakes
from ranker.data.paths import open_path
from ranker.data.source import ExampleSource, Source, no_run

_DEEP_LEARNING = "trec-dl-"


def open_copy(
    name: str, *, path: str | Path, form: str | None = None, candidates: bool = True, max_triples: int | None = None,
    **options: Any,
) -> Source | ExampleSource:  # fmt: skip
    """The data set ``name`` from the files at ``path``.

    Args:
        form: of Quora: ``retrieval`` or ``pairs``; a copy of the other form is refused.
        candidates: also read the ranked lists that are there.
        max_triples: of the training triples that are there, the first so many.
        options: of the format of the files, and its name.

    Raises:
        DataError: where the copy has no place for an option.
    """
    if max_triples is not None:
        options["max_triples"] = max_triples
    source = open_path(path, **options)
    if form is not None and isinstance(source, ExampleSource) != (form == "pairs"):
        found = "pairs" if isinstance(source, ExampleSource) else "retrieval"
        raise DataError(f"{path}: holds the form {found!r}, not {form!r}; name the other copy, or leave form out")
    if isinstance(source, ExampleSource):
        return source
    levels = {**_levels(name, source), **source.relevance_levels}
    return replace(source, relevance_levels=levels, run=source.run if candidates else no_run)


def _levels(name: str, source: Source) -> Mapping[str, int]:
    """Judgements of TREC DL count from 2 on; MS MARCO's test set is one of them where it is graded."""
    if name.startswith(_DEEP_LEARNING):
        return {"test": 2}
    test = source.qrels(Mistakes(name)).get("test") if name in ("msmarco", "beir/msmarco") else None
    graded = test is not None and test.num_rows and pc.max(test["relevance"]).as_py() > 1
    return {"test": 2} if graded else {}
