"""``musgd claims``: what the article claims, measured here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from musgd_cli.commands.options import Data, Json, Model, Name, Quiet, Set, Trust

DEFAULT_NAME = "claims"

_STOPPING = "finishing this step; Ctrl-C once more stops at once"


def claims(
    quick: Annotated[
        bool, typer.Option("--quick", help="Some 20 minutes on two slow cores. The default.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Three seeds and longer trainings: hours.")
    ] = False,
    claim: Annotated[
        list[str] | None,
        typer.Option("--claim", metavar="C1", help="Only this claim; may be repeated."),
    ] = None,
    data: Data = None,
    model: Model = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes of a scored training, in place of the scale's."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Scored trainings of each optimizer.")
    ] = None,
    name: Name = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings at once, one thread each. Default: 2, on a board 1."),
    ] = None,
    assignments: Set = None,
    trust: Trust = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Put the article's claims C1 to C11 to the test here: [bold]musgd claims --quick[/]

    Each claim is an experiment, for the article's MuSGD and for ours, with a rule for its verdict:
    holds, does not hold, undecided, or cannot be measured here. On a data set that is drawn for it,
    or with --full on yours. What is finished is kept in runs/claims; the same command goes on.
    """
    from musgd_cli.commands.planning import settings_of
    from musgd_cli.console import Terminal
    from musgd_cli.errors import ExitCode, UsageError
    from musgd_cli.lab.claims import examine
    from musgd_cli.lab.claims.scale import FULL, QUICK, changed
    from musgd_cli.lab.claims.session import Order, Watchers
    from musgd_cli.lab.trials import StoppedError, require_bearable
    from musgd_cli.report.terminal.claims import claims_table, result_line
    from musgd_cli.signals import StopRequest

    if quick and full:
        raise UsageError("--quick and --full are both given", "leave one of them out")
    jobs = jobs or _default_jobs()
    require_bearable(jobs)
    terminal = Terminal(as_json=as_json, quiet=quiet)
    flags, _ = settings_of({}, assignments)
    order = Order(
        folder=_folder(name or DEFAULT_NAME),
        scale=changed(FULL if full else QUICK, epochs=epochs, seeds=seeds),
        claims=tuple(claim or ()),
        data=data,
        model=model,
        flags=flags,
        jobs=jobs,
        trust=trust,
    )
    with StopRequest(lambda: terminal.say(_STOPPING)) as stop:
        watchers = Watchers(
            tell=terminal.say,
            on_result=lambda result: terminal.say(result_line(result)),
            stop=stop,
        )
        try:
            found = examine(order, watchers)
        except StoppedError as stopped:
            terminal.warn(stopped.what, stopped.mend)
            raise typer.Exit(stopped.exit_code) from None
        except KeyboardInterrupt:
            terminal.warn("stopped at once", "type the same command to go on")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
    terminal.show(claims_table(found))
    terminal.emit(found)
    terminal.say(f"kept {order.folder / 'claims.json'}")


def _folder(name: str) -> Path:
    from musgd_cli.paths import RUNS
    from musgd_cli.runs import require_free

    folder = RUNS / name
    if not folder.is_dir():
        require_free(name)
    return folder


def _default_jobs() -> int:
    """Two where cores are idle otherwise; a board's memory and heat, or a GPU, bear only one."""
    from musgd_cli.hardware import detect, usable_cores

    return 2 if usable_cores() > 1 and detect().board == "x86-cpu" else 1
