"""``musgd data``: look at a data set before hours are spent on it."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from musgd_cli.commands.options import Json, Quiet

app = typer.Typer(no_args_is_help=True)


@app.callback()
def data() -> None:
    """Look at a data set before hours are spent on it: [bold]musgd data check cells.yaml[/]"""


@app.command()
def check(
    path: Annotated[
        str, typer.Argument(help="A data set's YAML in Ultralytics' format, or its folder.")
    ],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a data set holds and all its faults: [bold]musgd data check cells.yaml[/]

    Decodes every image, reads every label, finds duplicates within and between splits.
    Exits with 4 if it finds errors; warnings alone are no failure. train runs this first.
    """
    from musgd_cli import data
    from musgd_cli.console import Terminal
    from musgd_cli.errors import CheckFailedError
    from musgd_cli.report.terminal.data import render

    terminal = Terminal(as_json=as_json, quiet=quiet)
    with terminal.status(f"checking {path}"):
        report = data.check(path)
    terminal.show(render(report))
    terminal.emit(report)
    images = sum(split.n_images for split in report.splits)
    terminal.say(f"{images} images in {report.seconds:.1f} s")
    if report.errors:
        count = "1 error" if len(report.errors) == 1 else f"{len(report.errors)} errors"
        raise CheckFailedError(
            f"{report.path} has {count}",
            f"mend the files named above, then musgd data check {shlex.quote(path)}",
        )
