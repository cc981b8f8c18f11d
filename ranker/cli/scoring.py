"""`ranker score` and `ranker engines`: score the user's lists, and find the fastest way to do so on this machine."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ranker.cli.errors import explain
from ranker.cli.progress import show_progress
from ranker.config import ConfigError, ScoringConfig, parse_overrides
from ranker.pretrained import resolve

Model = Annotated[str, typer.Argument(help="Model folder, exported folder or hub id.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="A field of `scoring`: precision=fp32")
]
# What of `scoring` means something to a bi-encoder.
ENCODER_FIELDS = ("samples", "num_samples", "max_length")
# Lists that are scored together: enough to fill batches, little enough to see results early.
LISTS = 64


def score(
    model: Model,
    file: Annotated[Path, typer.Argument(help='JSON Lines: {"query": "...", "documents": ["...", ...]}')],
    top_k: Annotated[int | None, typer.Option(min=1, help="Results a query. Default: all.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Logits instead of their sigmoid.")] = False,
    settings: Settings = None,
) -> None:
    """Rank the documents of each line; one line of JSON for each, with index and score, best first."""
    with show_progress(), explain():
        from ranker.scoring.scorer import load_scorer, probabilities

        lists = list(read_lists(file))
        scorer = load_scorer(model, scoring_config(settings))
        for start in range(0, len(lists), LISTS):
            some = lists[start : start + LISTS]
            logits = iter(scorer.score([(query, text) for query, texts in some for text in texts]).tolist())
            for query, texts in some:
                own = [next(logits) for _ in texts]
                shown = own if raw else probabilities(own).tolist()
                best = sorted(range(len(own)), key=lambda place: -own[place])[:top_k]
                results = [{"index": place, "score": shown[place]} for place in best]
                sys.stdout.write(json.dumps({"query": query, "results": results}, ensure_ascii=False) + "\n")


def engines(
    model: Model,
    samples: Annotated[
        Path | None,
        typer.Option(help="Your own pairs: groups.parquet, as `mine` writes it; of a bi-encoder, its texts."),
    ] = None,
    export: Annotated[
        bool, typer.Option("--export", help="Write ONNX graphs in fp32 and int8 into the model's folder first.")
    ] = False,
    settings: Settings = None,
) -> None:
    """Measure every way to run this model on this machine, and keep the best one for the next start.

    A reranker's ways to score; of a bi-encoder, those to encode. With `--set cascade_tokens=64` also what the cascade
    loses in NDCG@10 and what it saves, on whole lists of the samples.
    """
    with show_progress(), explain():
        if is_encoder(model):
            sys.stdout.write(json.dumps(encoder_engines(model, export, samples, settings), indent=2) + "\n")
            return
        from ranker.scoring.model_folder import find_model, read_config, read_tokenizer
        from ranker.scoring.pairs import longest_pair
        from ranker.scoring.settle import cascade_measured, decision, settled_way

        config = scoring_config([*(settings or ()), *([f"samples={samples}"] if samples else [])])
        result: dict[str, Any] = {}
        files = find_model(model)
        if export:
            from ranker.optimization.beside import export_beside
            from ranker.scoring.settle import samples_of

            result["export"] = export_beside(files.model, samples_of(files, config))
            files = find_model(model)
        tokenizer = read_tokenizer(files)
        max_length = longest_pair(tokenizer, read_config(files), config.max_length)
        way = settled_way(files, tokenizer, max_length, config, again=True)
        result |= decision(files, max_length, config) or {"chosen": str(way), "reason": "there is no other way"}
        if config.cascade_tokens:
            result["cascade"] = cascade_measured(files, tokenizer, max_length, config, way)
        sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False, default=str) + "\n")


def is_encoder(model: str) -> bool:
    """Whether this is a sentence-transformers bi-encoder."""
    return (Path(resolve(model)) / "modules.json").is_file()


def encoder_engines(
    model: str, export: bool, samples: Path | None = None, settings: list[str] | None = None
) -> dict[str, Any]:
    """What was measured of a bi-encoder, on the texts of ``samples`` where they are given.

    Raises:
        ConfigError: for a field of `scoring` that means nothing to a bi-encoder.
        FileNotFoundError: where the samples are not there.
    """
    from ranker.optimization.encoder_export import export_encoder, settle_encoder
    from ranker.scoring.samples import texts_of

    config = scoring_config([*(settings or ()), *([f"samples={samples}"] if samples else [])])
    if others := sorted(config.model_fields_set - set(ENCODER_FIELDS)):
        known = ", ".join(ENCODER_FIELDS)
        raise ConfigError(f"--set {', '.join(others)}: of a bi-encoder every way is measured; {known} can be set")
    file = None if config.samples is None else Path(config.samples).expanduser()
    if file is not None and not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; name a groups.parquet, as `mine` writes it")
    folder = resolve(model)
    written = {"export": export_encoder(folder)} if export else {}
    texts = texts_of(file, config.num_samples) if file else ()
    return {**written, **settle_encoder(folder, texts, config.max_length), "samples": str(file or "built-in")}


def scoring_config(assignments: list[str] | None) -> ScoringConfig:
    """The section `scoring` with these fields.

    Raises:
        ConfigError: all unknown fields and bad values at once.
    """
    from pydantic import ValidationError

    try:
        return ScoringConfig.model_validate(parse_overrides(assignments or ()))
    except ValidationError as error:
        problems = [f"  {'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()]
        fields = ", ".join(ScoringConfig.model_fields)
        raise ConfigError("\n".join(["--set", *problems, f"  the fields are {fields}"])) from None


def read_lists(file: Path) -> Iterator[tuple[str, list[str]]]:
    """(query, documents) of each line.

    Raises:
        ValueError: naming every line that is not such a list.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    problems = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            query, documents = row["query"], row["documents"]
        except (ValueError, KeyError, TypeError):
            problems.append(f'{file}:{number}: not {{"query": ..., "documents": [...]}}')
            continue
        if not isinstance(query, str) or not isinstance(documents, list) or not all(
            isinstance(text, str) for text in documents
        ):  # fmt: skip
            problems.append(f"{file}:{number}: query must be a string and documents a list of strings")
            continue
        yield query, documents
    if problems:
        raise ValueError("\n".join(problems))
