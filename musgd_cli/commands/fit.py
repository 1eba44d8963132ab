"""``musgd fit``: which artifact and thread count meets a goal on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from musgd_cli.commands.options import Data, Json, Quiet, Set, Target

if TYPE_CHECKING:
    from musgd_cli.bench.process import Progress
    from musgd_cli.bench.subject import Subject
    from musgd_cli.records import Fit


def fit(
    fps: Annotated[
        float, typer.Option("--fps", metavar="N", help="Whole frames a second, at least.")
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="A run, an artifact's folder, or a folder of artifacts. Default: the newest run.",
        ),
    ] = None,
    watts: Annotated[
        float | None,
        typer.Option(
            "--watts",
            metavar="W",
            help="Mean power at most, while it runs as fast as it can; needs a power meter.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="X",
            help="Most mAP50-95, of 1, lost against the float parent.",
        ),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Thread counts to try, by commas; sweep: 1 to every core. Default: 1, 2, 4, … "
            "and every core.",
        ),
    ] = None,
    data: Data = None,
    duration: Annotated[
        float | None, typer.Option(help="Seconds that a candidate is timed, over all repeats.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Fresh processes that share them; three tell an interval.")
    ] = None,
    meter: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.csv",
            help="Power meter of --watts. Default: the one that says most.",
        ),
    ] = None,
    target: Target = None,
    assignments: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the most accurate artifact that is fast enough: [bold]musgd fit --fps 30[/]

    A frame is a whole one: letterbox, inference and decode. The smallest and the
    largest image of each model are measured shortly, those between are predicted,
    and what comes near is measured in full; so is one size larger than the answer.
    More sizes to choose from: musgd export --imgsz 256,320,416. Power is that of a
    board at full speed, not of one that waits for N frames a second. The exit code
    is 4 where nothing meets it.
    """
    from rich.text import Text

    from musgd_cli.bench import choose
    from musgd_cli.bench.fit import Goal
    from musgd_cli.bench.fit import fit as find
    from musgd_cli.commands.planning import bench_settings, each_once, read_threads
    from musgd_cli.console import Terminal, print_error
    from musgd_cli.errors import MusgdError, UnsupportedError
    from musgd_cli.hardware.power import choose_meter
    from musgd_cli.report.terminal.fit import fit_table

    terminal = Terminal(as_json=as_json, quiet=quiet)
    counts = read_threads(threads)
    settings = bench_settings(
        {
            "bench.duration_s": ("--duration", duration),
            "bench.repeats": ("--repeats", repeats),
        },
        target,
        assignments,
    )
    failures: list[MusgdError] = []
    subjects = choose(paths or (), failures.append)
    stage = ""
    with terminal.live(Text()) as live:

        def show_stage(text: str) -> None:
            nonlocal stage
            stage = text
            if live is None:
                terminal.say(text)

        def show(subject: Subject, progress: Progress) -> None:
            if live is not None:
                live.update(Text(f"{stage}\n{_line(subject, progress)}", style="dim"))

        found = find(
            subjects,
            Goal(fps=fps, watts=watts, max_drop=max_drop),
            settings=settings,
            threads=counts,
            data=data,
            meter_for=lambda device: choose_meter(meter, device=device),
            on_progress=show,
            on_stage=show_stage,
            on_failure=failures.append,
        )
        if live is not None:
            live.update(Text())
    told = each_once(failures)
    for failure in told:
        print_error(failure)
    terminal.show(fit_table(found))
    terminal.emit(found)
    _judge(found)
    # As in a bench: one that is damaged might have been the answer.
    serious = [error for error in told if not isinstance(error, UnsupportedError)]
    if serious:
        raise typer.Exit(int(serious[0].exit_code))


def _line(subject: Subject, progress: Progress) -> str:
    from musgd_cli.report.wording import count

    repeat = f", {progress.repeat}/{progress.repeats}" if progress.repeats > 1 else ""
    threads = f", {count(progress.threads, 'thread')}" if progress.threads else ""
    return f"{subject.name}{threads}{repeat}: {progress.phase}"


def _judge(fit: Fit) -> None:
    """End with exit code 4 where nothing meets the goal."""
    from musgd_cli.errors import CheckFailedError
    from musgd_cli.report.terminal.fit import describe

    if fit.chosen is not None:
        return
    if fit.nearest is None:
        left_out = next((c.why for c in fit.candidates if c.why), "nothing to choose from")
        raise CheckFailedError(
            f"every artifact was left out: {left_out}", "export others, or ask for less"
        )
    raise CheckFailedError(
        f"nothing here meets it; nearest is {describe(fit.nearest)}: {fit.nearest.why}",
        "export smaller images: musgd export --imgsz 160,192,224,256, or ask for less",
    )
