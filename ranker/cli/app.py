"""The ``ranker`` command: one verb a door, and the few that look at what is there."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ranker.cli import data as data_view
from ranker.cli import doctor as doctor_view
from ranker.cli import measuring
from ranker.cli import models as models_view
from ranker.cli import scoring as scoring_view
from ranker.cli.errors import explain
from ranker.cli.progress import show_progress
from ranker.cli.stages import DOORS, run, run_all
from ranker.config import Experiment, Stage, load_experiment
from ranker.session import one_cluster

app = typer.Typer(
    name="ranker",
    help="Train and serve semantic rerankers, on a laptop or on a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
serve_app = typer.Typer(help="The online service: `serve run serve_configs/local.yaml`.", no_args_is_help=True)
app.add_typer(serve_app, name="serve")
app.add_typer(data_view.app, name="data")

ConfigFile = Annotated[Path, typer.Argument(help="Experiment file, for instance jobs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override one field: train.lora.r=8")
]


def write_result(value: object) -> None:
    """A result as JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _stage_verb(stage: Stage) -> Callable[[Path, list[str] | None], None]:
    def verb(config: ConfigFile, overrides: Overrides = None) -> None:
        with show_progress(), explain():
            write_result(run(stage, load_experiment(config, overrides or ())).summary())

    purpose = DOORS[stage].purpose
    verb.__doc__ = f"{purpose[0].upper()}{purpose[1:]}; stages that it reads and that are not done yet run first."
    return verb


for _stage in DOORS:
    # `ranker evaluate` also takes a run and judgements, `tune` a space, and `data` also inspects: written out below.
    if _stage not in ("evaluate", "tune"):
        app.command("prepare" if _stage == "data" else _stage)(_stage_verb(_stage))


@app.command()
def tune(
    config: ConfigFile,
    space: Annotated[
        Path | None, typer.Option(help="File of config paths and samplers; short for --set tune.space=")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Search hyper-parameters; stages that it reads and that are not done yet run first."""
    with show_progress(), explain():
        given = [*(overrides or ()), *([f"tune.space={space}"] if space else [])]
        write_result(run("tune", load_experiment(config, given)).summary())


@app.command()
def retrain(
    config: ConfigFile,
    source: Annotated[
        Path | None, typer.Option(help="Sweep, model folder, or folder of models; else the experiment's sweep.")
    ] = None,
    keep_test: Annotated[bool, typer.Option(help="Leave the test queries out, to measure the model.")] = False,
    overrides: Overrides = None,
) -> None:
    """Train the recipe of a sweep's best trial, or of the best model below a folder, on the queries of all splits."""
    with show_progress(), explain():
        from ranker.tuning.chosen import choose
        from ranker.tuning.retrain import retrain as door

        experiment = load_experiment(config, overrides or ())
        choose(source or experiment.folder("tune"), experiment)  # before the stages in front of it run in vain
        with one_cluster():
            if experiment.train.groups is None:
                run("index", experiment)
            write_result(door(experiment, source, keep_test=keep_test).summary())


app.command()(measuring.evaluate)
app.command()(measuring.compare)


app.command()(scoring_view.score)
app.command()(scoring_view.engines)


@app.command()
def pipeline(config: ConfigFile, overrides: Overrides = None) -> None:
    """Run every stage of an experiment; what is already done is skipped."""
    with show_progress(), explain():
        write_result([done.summary() for done in run_all(load_experiment(config, overrides or ()))])


@app.command()
def quickstart(
    output_dir: Annotated[str | None, typer.Option(help="Folder of the artefacts.")] = None,
    overrides: Overrides = None,
) -> None:
    """Train a reranker on the documentation of this Python installation and show what it changes."""
    from ranker.cli.quickstart import run_quickstart, shipped

    with show_progress() as console, explain():
        extra = [f"output_dir={output_dir}"] if output_dir else []
        run_quickstart(load_experiment(shipped("quickstart.yaml"), [*(overrides or ()), *extra]), console)


@app.command()
def doctor() -> None:
    """Show what is installed and what this machine can do; exit status 1 when something required is missing."""
    raise typer.Exit(doctor_view.show())


@app.command()
def models(folder: Annotated[Path, typer.Argument(help="Folder to look in.")] = Path("runs")) -> None:
    """List the trained models below a folder, newest first."""
    with explain():
        models_view.show(folder)


@app.command("config")
def show_config(config: ConfigFile, overrides: Overrides = None) -> None:
    """Print the whole experiment, defaults and overrides included, as YAML; mistakes are listed instead."""
    with explain():
        experiment: Experiment = load_experiment(config, overrides or ())
        sys.stdout.write(experiment.to_yaml())


@serve_app.command("check")
def serve_check(configs: Annotated[list[Path], typer.Argument(help="Serve config files.")]) -> None:
    """Find what Ray Serve accepts silently: unknown keys, fields in the wrong place, missing model folders."""
    from ranker.serving.lint import check, remarks

    problems = [problem for config in configs for problem in check(config)]
    notes = [f"note: {remark}" for config in configs for remark in remarks(config)]
    for line in (*problems, *notes):
        typer.echo(line, err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{len(configs)} file{'s' if len(configs) > 1 else ''} checked, no problems")


@serve_app.command("key")
def serve_key(
    name: Annotated[str, typer.Option(help="What logs and limits call it.")] = "",
    limits: Annotated[list[str] | None, typer.Argument(help="Such as requests_per_minute=600 write=no.")] = None,
) -> None:
    """Make an API key: the key goes to the screen once, the line for the file of keys, with its hash, to the output."""
    from ranker.serving.keys import SecurityError, load_keys, new_key

    key, written = new_key()
    line = " ".join([written, *([f"name={name}"] if name else []), *(limits or [])])
    try:
        load_keys(environment={"RANKER_API_KEYS": line})
    except SecurityError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(f"the key, which is shown this once: {key}", err=True)
    typer.echo(line)
