"""`ranker models`: the model folders that `fit` left, with where they come from and how good they are."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ranker.manifest import Manifest, StageError, read_manifest
from ranker.tuning.chosen import trained_models as models_below


def trained_models(folder: Path) -> list[tuple[Path, Manifest]]:
    """Finished model folders below ``folder``, newest first.

    Raises:
        StageError: where the folder does not exist.
    """
    if not folder.is_dir():
        raise StageError(f"{folder}: no such folder; `ranker quickstart` trains a first model into runs/quickstart")
    return models_below(folder)


def test_measures(model: Path) -> dict[str, Any]:
    """Means of the reranked list, where an evaluation beside the model has measured this very model."""
    beside = model.parent / "evaluation"
    try:
        evaluated = read_manifest(beside)
        if evaluated.inputs.get("model") != read_manifest(model).key:
            return {}
        metrics: dict[str, Any] = json.loads((beside / "metrics.json").read_text("utf-8"))
    except (StageError, OSError, ValueError):
        return {}
    means: dict[str, Any] = metrics.get("means", {}).get("reranked", {})
    return means


def show(folder: Path) -> None:
    """Print the table."""
    models = trained_models(folder)
    console = Console()
    if not models:
        console.print(f"no trained model below {folder}; `ranker quickstart` trains a first one", markup=False)
        return
    table = Table(title=f"Models below {folder}")
    for heading in ("folder", "backbone", "loss", "finished"):
        table.add_column(heading, overflow="fold")
    for heading in ("pairs", "dev ndcg@10", "test ndcg@10"):
        table.add_column(heading, justify="right")
    for path, manifest in models:
        dev = manifest.outcome.get("dev", {}).get("ndcg@10")
        test = test_measures(path).get("ndcg@10")
        table.add_row(
            str(path.relative_to(folder)),
            str(manifest.outcome.get("backbone", "")).rpartition("/")[2],
            str(manifest.config.get("loss", "")),
            manifest.finished[:16].replace("T", " "),
            str(manifest.outcome.get("pairs", "")),
            f"{dev:.3f}" if dev is not None else "-",
            f"{test:.3f}" if test is not None else "-",
        )
    console.print(table)
