"""`ranker data`: look through a collection before it is used, write it in another format, list those with a name."""

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ranker.cli.errors import explain
from ranker.cli.progress import show_progress
from ranker.config import parse_overrides

app = typer.Typer(help="Look through, convert and list collections.", no_args_is_help=True)

SHOWN_IDS = 50
Source = Annotated[
    str, typer.Argument(help="Path of a folder, zip or file; a listed name; ir_datasets:ID; or hf:ORG/NAME.")
]
FormatName = Annotated[str | None, typer.Option("--format", help="What the files are. Default: seen from them.")]
Encoding = Annotated[str | None, typer.Option(help="Of the files, such as latin-1. Default: utf-8.")]
OnInvalid = Annotated[str | None, typer.Option(help="`replace` puts U+FFFD where bytes are not in the encoding.")]
Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="Option of the source; may be repeated.")
]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="Judged ids that are not there are no mistake.")]


@app.command()
def inspect(
    source: Source,
    format: FormatName = None,
    encoding: Encoding = None,
    on_invalid: OnInvalid = None,
    option: Options = None,
    allow_missing: AllowMissing = False,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Also write the numbers there; - prints nothing else.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Documents and queries whose tokens are counted.")] = 20_000,
) -> None:
    """Show what is in a collection, and what is wrong with it; exit status 1 when something is."""
    with show_progress(), explain():
        from ranker.cli.inspection import print_inspection
        from ranker.data.catalog import cache_folder
        from ranker.data.inspection.report import inspect_source
        from ranker.data.opening import open_source
        from ranker.manifest import write_json

        options = named_options(option, format=format, encoding=encoding, on_invalid=on_invalid)
        allow_missing = bool(options.pop("allow_missing", allow_missing))
        _refuse_samples(source, options)
        opened = open_source(source, **options)
        with tempfile.TemporaryDirectory(prefix=".inspect-", dir=cache_folder()) as work:
            found = inspect_source(opened, Path(work), sample=sample, allow_missing=allow_missing)
        if json_file == "-":
            _write_result(found.as_dict())
        else:
            print_inspection(found, Console())
            if json_file is not None:
                write_json(Path(json_file).expanduser(), found.as_dict())
    if found.mistakes.count:
        raise typer.Exit(1)


@app.command()
def convert(
    source: Source,
    folder: Annotated[Path, typer.Argument(help="Folder to write; must not exist, or be empty.")],
    to: Annotated[str, typer.Option(help="Format to write, such as beir or parquet.")],
    format: FormatName = None,
    encoding: Encoding = None,
    on_invalid: OnInvalid = None,
    option: Options = None,
    allow_missing: AllowMissing = False,
    max_documents: Annotated[int | None, typer.Option(min=1, help="Seeded sample; judged documents stay.")] = None,
    max_queries: Annotated[int | None, typer.Option(min=1, help="Seeded sample of so many queries a split.")] = None,
    lossy: Annotated[bool, typer.Option("--lossy", help="Change or leave out what the format cannot say.")] = False,
) -> None:
    """Write a collection in another format."""
    with show_progress(), explain():
        from ranker.data.convert import convert as written

        given = {"max_documents": max_documents, "max_queries": max_queries, "allow_missing": allow_missing or None}
        options = named_options(option, format=format, encoding=encoding, on_invalid=on_invalid, **given)
        _write_result(written(source, folder, to, lossy=lossy, **options))


@app.command("list")
def list_sources(
    word: Annotated[str, typer.Argument(help="Only names that hold this; also looked for in ir_datasets.")] = "",
) -> None:
    """List the collections that have a name, and say how others are named."""
    with explain():
        from ranker.cli.inspection import print_names
        from ranker.data.catalog import DATASETS
        from ranker.data.formats.hub import PREFIX as HUB
        from ranker.data.ir_sets import PREFIX as IR_DATASETS

        console = Console()
        names = {name: _first_line(entry) for name, entry in DATASETS.items() if word.lower() in name.lower()}
        print_names(names, console)
        if word:
            _print_ids(word, IR_DATASETS, DATASETS, console)
        console.print(
            f"others: {IR_DATASETS}ID (https://ir-datasets.com/all.html), {HUB}ORG/NAME, or a path", style="dim"
        )


def named_options(assignments: Iterable[str] | None, **given: Any) -> dict[str, Any]:
    """``["max_triples=1000"]`` -> ``{"max_triples": 1000}``, read as YAML; and those ``given`` that are not None.

    Raises:
        ConfigError: naming every assignment that is none.
    """
    options = parse_overrides(assignments or (), "--option")
    return {**options, **{key: value for key, value in given.items() if value is not None}}


def matching_ids(word: str) -> list[str]:
    """Ids of ir_datasets that hold the word and have documents, queries and judgements; old names are left out."""
    # It would warn of every old name that is looked at.
    os.environ.setdefault("IR_DATASETS_SKIP_DEPRECATED_WARNING", "true")
    import ir_datasets

    found = [name for name in ir_datasets.registry if word.lower() in name.lower()]
    return sorted(name for name in found if _is_whole(ir_datasets.registry[name]))


def _is_whole(entry: Any) -> bool:
    return bool(entry.has_docs() and entry.has_queries() and entry.has_qrels() and not hasattr(entry, "deprecated"))


def _print_ids(word: str, prefix: str, known: Iterable[str], console: Console) -> None:
    ids = matching_ids(word)
    if not ids:
        parts = {part for name in [*matching_ids(""), *known] for part in name.split("/")}
        close = get_close_matches(word, sorted(parts), n=2)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        console.print(f"no id of ir_datasets holds {word!r}{hint}", markup=False, highlight=False)
    for name in ids[:SHOWN_IDS]:
        console.print(f"{prefix}{name}", markup=False, highlight=False, soft_wrap=True)
    if len(ids) > SHOWN_IDS:
        console.print(f"and {len(ids) - SHOWN_IDS} more; say more of the name", style="yellow", highlight=False)
    console.print()


def _first_line(entry: Any) -> str:
    return str(entry.__doc__ or "").strip().partition("\n")[0]


def _refuse_samples(source: str, options: Iterable[str]) -> None:
    """All of a source is looked through; only a source that makes its documents takes such options itself."""
    import inspect as signatures

    from ranker.data.catalog import DATASETS
    from ranker.data.errors import DataError
    from ranker.data.store import Reading

    own = signatures.signature(DATASETS[source]).parameters if source in DATASETS else {}
    wrong = [field.name for field in fields(Reading) if field.name in options and field.name not in own]
    if wrong:
        raise DataError(f"{', '.join(wrong)}: inspect looks through all of {source}; `ranker data convert` samples it")


def _write_result(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
