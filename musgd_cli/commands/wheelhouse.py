"""``musgd wheelhouse``: fetch what a board installs, for one without a network."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from musgd_cli.commands.options import Json, Quiet, split


def wheelhouse(
    target: Annotated[
        str, typer.Option(metavar="BOARD", help="The board: pi4b, pi5, x86-cpu and so on.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder. Default: wheelhouse-BOARD."),
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VERSION",
            help="The board's Python; several by commas or repeated. Default: 3.11,3.13, which "
            "Raspberry Pi OS 12 and 13 have; for x86 this machine's.",
        ),
    ] = None,
    extras: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Parts of musgd, such as train, besides the board's own; likewise.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch what a board without a network installs: [bold]musgd wheelhouse --target pi4b[/]

    Carry the folder there and run: sh wheelhouse-pi4b/install.sh --offline wheelhouse-pi4b. It
    holds wheels alone, the installer, and the checksums that the installer checks. pip's own
    settings (index, proxy, constraints) apply.
    """
    from rich.text import Text

    from musgd_cli.console import Terminal
    from musgd_cli.remote.wheelhouse import fetch

    terminal = Terminal(as_json=as_json, quiet=quiet)
    place = out or Path(f"wheelhouse-{target}")
    with terminal.live(Text()) as live:

        def show(text: str) -> None:
            if live is None:
                terminal.say(text)
            else:
                live.update(Text(text, style="dim"))

        house = fetch(
            target,
            place,
            pythons=split(python),
            extras=split(extras),
            on_progress=show,
            on_warning=terminal.warn,
        )
        if live is not None:
            live.update(Text())
    name = place.resolve().name
    install = shlex.join(["sh", f"{name}/install.sh", "--offline", name])
    terminal.show(Text(house.path))
    terminal.emit(house)
    terminal.say(
        f"{len(house.wheels)} wheels, {house.size_mb:.0f} MB, for Python "
        f"{' and '.join(house.pythons)}; on the board: {install}"
    )
