"""The command line: one file a verb, options in, a stage called, its record rendered.

Command modules import typer and their neighbours' option types at the top and nothing else:
``musgd --help`` loads all of them.
"""

from __future__ import annotations

import typer

from musgd_cli.commands import (
    bench,
    bundle,
    claims,
    compare,
    data,
    demo,
    doctor,
    export,
    fit,
    plan,
    predict,
    profiles,
    prune,
    report,
    train,
    tune,
    wheelhouse,
)

app = typer.Typer(
    name="musgd",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        from musgd_cli import __version__

        typer.echo(f"musgd {__version__}")
        raise typer.Exit


@app.callback()
def musgd(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_print_version
    ),
) -> None:
    """From a detection data set to a model that runs on an edge board.

    [bold]musgd demo[/]  tries the whole path on a built-in data set.
    """


app.command()(doctor.doctor)
app.command()(plan.plan)
app.add_typer(profiles.app, name="profiles")
app.add_typer(data.app, name="data")
app.command()(train.train)
app.command()(compare.compare)
app.command()(tune.tune)
app.command()(claims.claims)
app.command()(prune.prune)
app.command()(export.export)
app.command()(bench.bench)
app.command()(fit.fit)
app.command()(report.report)
app.command()(predict.predict)
app.command()(bundle.bundle)
app.command()(wheelhouse.wheelhouse)
app.command()(demo.demo)
