"""``musgd demo``: the whole path, on a data set that the package draws itself."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from musgd_cli.commands.options import Json, Quiet

DATA = Path("demo-data")
"""Where the set is drawn, below the current folder; kept, and used again by the next demo."""


def demo(
    name: Annotated[
        str | None, typer.Option(help="Name of the run. Default: demo, or the next that is free.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try everything in minutes: [bold]musgd demo[/]

    Draws a small detection set into ./demo-data, then types for you: doctor, plan, train from
    scratch, export --int8, bench. Offline. Each command is shown before it runs.
    """
    from musgd_cli.commands.planning import settle_from_options
    from musgd_cli.console import Terminal
    from musgd_cli.data import demo as demo_set
    from musgd_cli.errors import CheckFailedError, ExitCode
    from musgd_cli.runs import free_name

    terminal = Terminal(as_json=as_json, quiet=quiet)
    run = name or free_name("demo")
    with terminal.status(f"drawing the demo set into {DATA}/"):
        data = demo_set.draw(DATA)
    settled = settle_from_options().settings
    settings = [
        f"--set={key}={value}"
        for key, value in demo_set.DEMO_SETTINGS.items()
        if settled[key].value != value  # what this machine has already is not typed again
    ]
    steps = [
        ["doctor"],
        ["plan", "--data", str(data), *settings],
        ["train", "--data", str(data), "--name", run, *settings],
        ["export", f"runs/{run}", "--int8"],
        ["bench", f"runs/{run}"],
    ]

    from musgd_cli.commands import app

    command = typer.main.get_command(app)
    outcome = ExitCode.DONE
    for step in steps:
        last = step is steps[-1]
        terminal.say(f"\n$ musgd {shlex.join(step)}")
        # Under --json only the last step may speak on stdout.
        stream = sys.stderr if as_json and not last else sys.stdout
        arguments = [
            *step,
            *(["--quiet"] if quiet else []),
            *(["--json"] if last and as_json else []),
        ]
        with contextlib.redirect_stdout(stream):
            try:
                code = command.main(arguments, prog_name="musgd", standalone_mode=False)
            except CheckFailedError as error:
                # A tour goes on; only what ails the machine is no failure of the tour.
                terminal.warn(error.what, error.mend)
                outcome = ExitCode.DONE if step[0] == "doctor" else error.exit_code
                code = ExitCode.DONE
        if code:
            raise typer.Exit(int(code))
    if outcome:
        raise typer.Exit(int(outcome))
