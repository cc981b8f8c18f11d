"""What the folders that a Serve config names say on this machine, and which of them count."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ranker.manifest import StageError, read_manifest
from ranker.pretrained import ModelNotFoundError, resolve
from ranker.serving.artefacts import ServeArgs, find_pickles


def settings_problems(deployment: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the folders in the ``user_config`` of a deployment of ours, relative to the deployment."""
    given = deployment.get("user_config")
    if not isinstance(given, dict):
        return
    models = given.get("models")
    if deployment["name"] == "Reranker" and isinstance(models, dict):
        for name, folder in models.items():
            yield from _named(f"user_config.models.{name}", model_problems(str(folder)))
    if deployment["name"] == "Retriever" and {"index", "corpus"} <= given.keys():
        yield from _named("user_config", index_problems(Path(str(given["index"])), Path(str(given["corpus"]))))


def model_problems(model: str) -> list[str]:
    """Of a reranker or an encoder: no model folder, or weights that are pickles. A hub id is not looked into."""
    try:
        return find_pickles(Path(resolve(model)))
    except ModelNotFoundError as error:
        return [str(error)]


def index_problems(index: Path, corpus: Path) -> list[str]:
    """Of an index and its documents: not finished, not made of each other, or an encoder that is not loaded."""
    from ranker.retrieval.shards import IndexInfo  # with FAISS

    found: list[str] = []
    for folder in (index, corpus):
        try:
            read_manifest(folder)
        except StageError as error:
            found.append(str(error))
    if found:
        return found
    if read_manifest(corpus).key not in read_manifest(index).inputs.values():
        found.append(f"{index}: built from other documents than {corpus}; name the data folder that it was built from")
    try:
        return found + model_problems(IndexInfo.read(index).model)
    except (StageError, OSError, ValueError) as error:
        return [*found, f"{index}: {error}"]


def outvoted(args: ServeArgs, deployments: list[dict[str, Any]]) -> Iterator[str]:
    """Where a ``user_config`` names other folders than ``args``: what is served then, and what is not."""
    for place, deployment in enumerate(deployments):
        given = deployment.get("user_config") or {}
        if deployment["name"] == "Reranker":
            counting, other = set((given.get("models") or {}).values()), {args.reranker, *args.models.values()}
        elif deployment["name"] == "Retriever":
            counting, other = {given.get("index"), given.get("corpus")}, {args.index, args.corpus}
        else:
            continue
        if counting - {None} and counting != other:
            unused = sorted(str(folder) for folder in other - counting if folder)
            said = f"not {', '.join(unused)} of args" if unused else "not what args say"
            served = ", ".join(sorted(map(str, counting)))
            yield (
                f"deployments.{place}.user_config: {deployment['name']} serves {served}, {said}; what args name must "
                "still be there when the application starts"
            )


def _named(where: str, problems: list[str]) -> Iterator[str]:
    for problem in problems:
        yield f"{where}: {problem}"
