"""An evaluation that can be run again from any folder: names of its files, and an experiment that stands alone."""

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ranker.config import STAGES, Experiment

# First stages that are no run file.
MADE = ("retriever", "bm25", "candidates")
PLACES = ("output_dir", *(f"{stage}.output_dir" for stage in STAGES), "index.embeddings_dir")
# What may be a path or a name.
NAMED = ("data.source", "index.model", "train.model", "evaluate.first_stage", "evaluate.scoring.samples")


def file_name(system: str) -> str:
    """``name@50`` as it stands in file names and run tags; two names are two there, whatever signs they have."""
    plain = (letter if letter.isalnum() or letter in "@._-" else _quoted(letter) for letter in system)
    return "".join(plain)


def standing(config: Experiment, models: Sequence[str]) -> Experiment:
    """The experiment with every path absolute, and with the models that were measured, the main one first."""
    changed: dict[str, Any] = {"evaluate.model": models[0], "evaluate.models": list(models[1:])}
    for field in (*PLACES, *NAMED):
        value = attrgetter(field)(config)
        if value is None or value in MADE:
            continue
        path = Path(value).expanduser()
        if field in PLACES or path.exists():
            changed[field] = str(path.absolute())
    return config.with_overrides(changed)


def _quoted(letter: str) -> str:
    # A path that is no UTF-8 reaches Python as surrogates.
    return quote(letter, safe="", errors="surrogatepass")
