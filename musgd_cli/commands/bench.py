"""``musgd bench``: measure artifacts on this machine and put them in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musgd_cli.commands.options import Data, Json, Quiet, Set, Target, Threads

if TYPE_CHECKING:
    from musgd_cli.bench.measurement import Progress
    from musgd_cli.records import BenchSettings


def bench(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="A run, an artifact's folder, or a folder of artifacts. Default: the newest run.",
        ),
    ] = None,
    data: Data = None,
    threads: Threads = None,
    duration: Annotated[
        float | None, typer.Option(help="Seconds of steady state that are timed.")
    ] = None,
    target: Target = None,
    assignments: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure what was exported, on this machine: [bold]musgd bench --threads 1[/]

    Each artifact runs in a process of its own: warmed up until steady, timed,
    then scored on the data set's test split, or on val where it has none.
    Without --data that is the run's own set. Reports are kept in the run's bench/.
    """
    from rich.text import Text

    from musgd_cli.bench import choose, measure_all
    from musgd_cli.console import Terminal, print_error
    from musgd_cli.errors import MusgdError, UnsupportedError
    from musgd_cli.records import BenchReport, BenchReports
    from musgd_cli.report.terminal.bench import bench_table

    terminal = Terminal(as_json=as_json, quiet=quiet)
    folders = choose(paths or ())
    settings = _settings(threads, duration, target, assignments)
    reports: list[BenchReport] = []
    failures: list[MusgdError] = []
    with terminal.live(Text()) as live:

        def show(folder: Path, progress: Progress) -> None:
            if live is not None:
                live.update(Text(_line(folder, progress), style="dim"))
            elif progress.phase == "load":
                terminal.say(f"measuring {folder}")

        for outcome in measure_all(folders, settings=settings, data=data, on_progress=show):
            if outcome.report is not None:
                reports.append(outcome.report)
                terminal.say(f"kept {outcome.kept}")
            elif outcome.error is not None:
                failures.append(outcome.error)
                if len(folders) > 1:
                    print_error(outcome.error)
        if live is not None:
            live.update(Text(f"measured {len(reports)} of {len(folders)}", style="dim"))
    if len(folders) == 1 and failures:
        raise failures[0]
    if reports:
        terminal.show(bench_table(reports))
        terminal.emit(BenchReports(reports=tuple(reports)))
    # An engine that is missing here is no failure of the bench, as long as another one ran.
    serious = [error for error in failures if not isinstance(error, UnsupportedError)]
    if serious or not reports:
        raise typer.Exit(int((serious or failures)[0].exit_code))


def _settings(
    threads: int | None, duration: float | None, target: str | None, assignments: list[str] | None
) -> BenchSettings:
    from musgd_cli.commands.planning import settings_of
    from musgd_cli.hardware import detect
    from musgd_cli.settings import settle

    flags, spelling = settings_of(
        {
            "bench.threads": ("--threads", threads),
            "bench.duration_s": ("--duration", duration),
        },
        assignments,
    )
    return settle(host=detect(), target=target, flags=flags, spelling=spelling).bench


def _line(folder: Path, progress: Progress) -> str:
    share = f" {progress.done}/{progress.total}" if progress.total else ""
    return f"{folder.name}: {progress.phase}{share}"
