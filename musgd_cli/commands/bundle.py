"""``musgd bundle``: a model and what runs it, for a board without musgd."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from musgd_cli.commands.options import Json, Quiet


def bundle(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT",
            help="An artifact's folder, another exporter's model file, or a run of one model.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE.zip",
            help="A new folder, or a new zip. Default: runs/NAME/bundles/ARTIFACT.zip.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pack a model to go: [bold]musgd bundle runs/demo/artifacts/pi4b-ncnn-int8-320[/]

    The board needs Python 3.9, NumPy, OpenCV and the model's engine; the README inside has the
    line that installs them. It holds the code of musgd predict, and predict.py to start it.
    """
    from rich.text import Text

    from musgd_cli.commands.predict import place_of, the_one
    from musgd_cli.console import Terminal
    from musgd_cli.predict.bundle import make
    from musgd_cli.predict.places import free_path

    terminal = Terminal(as_json=as_json, quiet=quiet)
    subject = the_one(artifact)
    place = out or free_path(place_of(subject) / "bundles", subject.name, ".zip")
    made = make(subject.folder, subject.artifact, place, name=subject.name)
    terminal.show(Text(made.path))
    terminal.emit(made)
    terminal.say(
        f"{made.size_mb:.1f} MB unpacked; on the board: Python {made.python} or newer, "
        f"pip install {shlex.join(made.requires)}"
    )
