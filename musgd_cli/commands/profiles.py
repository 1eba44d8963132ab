"""``musgd profiles``: list, show, copy and check the boards' tuned values."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from musgd_cli.commands.options import Json

app = typer.Typer(no_args_is_help=True)


@app.callback()
def profiles() -> None:
    """Tuned values for a board, each with its reason: [bold]musgd profiles show pi4b[/]"""


@app.command("list")
def list_profiles(as_json: Json = False) -> None:
    """List the shipped profiles and mark this machine's: [bold]musgd profiles list[/]"""
    from musgd_cli.console import Terminal
    from musgd_cli.hardware import detect
    from musgd_cli.profiles import available, match
    from musgd_cli.records import ProfileList
    from musgd_cli.report.terminal.plan import profiles_table

    terminal = Terminal(as_json=as_json)
    shipped = ProfileList(profiles=available(), here=match(detect()).name)
    terminal.show(profiles_table(shipped))
    terminal.emit(shipped)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A shipped profile, or the path of a .toml file.")],
) -> None:
    """Print a profile with every value's reason: [bold]musgd profiles show x86-cpu[/]"""
    from musgd_cli.profiles import find, read_text

    typer.echo(read_text(find(name)), nl=False)


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="The profile to start from.")],
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="A new .toml file, or a folder for one.")
    ],
) -> None:
    """Start a profile of your own: [bold]musgd profiles copy pi4b barn.toml[/]

    The copy takes the new file's name. Use it as --profile barn.toml or --target barn.toml.
    """
    from musgd_cli.console import Terminal
    from musgd_cli.profiles import copy_to

    copied = copy_to(name, destination)
    Terminal().say(f"copied to {copied}; use it with --profile {copied} or --target {copied}")


@app.command()
def check(path: Annotated[Path, typer.Argument(help="A profile's .toml file.")]) -> None:
    """Name every fault of a profile at once: [bold]musgd profiles check barn.toml[/]"""
    from musgd_cli import profiles
    from musgd_cli.console import Terminal
    from musgd_cli.errors import CheckFailedError

    faults = profiles.check(path)
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise CheckFailedError(
            f"{count} in {path}:{listed}",
            f"correct them and run musgd profiles check {shlex.quote(str(path))} again",
        )
    Terminal().say(f"{path} is sound")
