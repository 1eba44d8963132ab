"""``musgd bench``: measure models on this machine and put them in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musgd_cli.commands.options import Data, Json, Quiet, Set, Target

if TYPE_CHECKING:
    from musgd_cli.bench.process import Progress
    from musgd_cli.bench.subject import Subject
    from musgd_cli.records import BenchSettings

MOST_SWEPT = 8
"""Cores up to which a sweep tries every count; beyond, it doubles them."""

SUSTAINED_WARMUP_S = 0.0
"""A sustained run shows how the board warms up: none of it is left out."""


def bench(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="A run, an artifact's folder, a folder of artifacts, or a model that musgd did "
            "not make. Default: the newest run.",
        ),
    ] = None,
    data: Data = None,
    threads: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Engine threads: 2; several by commas: 1,2; sweep: 1 to every core, to find the "
            "best; 0 takes every core.",
        ),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Seconds of steady state that are timed, over all repeats.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Time so many frames, in place of --duration.")
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(help="Fresh processes that share the time and tell how stable it is."),
    ] = None,
    sustained: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="One process for so long: how speed lasts as the board warms up.",
        ),
    ] = None,
    meter: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.csv|none",
            help="Power meter: one that musgd doctor lists, or what an external one writes. "
            "Default: the one that says most.",
        ),
    ] = None,
    estimate_power: Annotated[
        bool,
        typer.Option(
            "--estimate-power", help="Without a meter, say what a board like this should draw."
        ),
    ] = False,
    target: Target = None,
    assignments: Set = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure what was exported, on this machine: [bold]musgd bench --threads 1,2[/]

    Each model is measured in fresh processes, in turns with the others: warmed up
    until steady, timed, then scored on the data set's test split, or on val where
    it has none. Without --data that is the run's own set. Reports are kept in the
    run's bench/.
    """
    from rich.text import Text

    from musgd_cli.bench import choose, measure_all
    from musgd_cli.console import Terminal, print_error
    from musgd_cli.errors import MusgdError, UnsupportedError
    from musgd_cli.hardware.power import choose_meter
    from musgd_cli.records import BenchReport, BenchReports
    from musgd_cli.report.terminal.bench import bench_table

    terminal = Terminal(as_json=as_json, quiet=quiet)
    counts = _thread_counts(threads)
    settings = _settings(
        {
            "bench.duration_s": _duration(duration, frames, sustained),
            "bench.repeats": ("--repeats", repeats),
            "bench.warmup_s": ("--sustained", None if sustained is None else SUSTAINED_WARMUP_S),
        },
        target,
        assignments,
    )
    reports: list[BenchReport] = []
    failures: list[MusgdError] = []
    subjects = choose(paths or (), failures.append)
    with terminal.live(Text()) as live:
        begun: set[Path] = set()

        def show(subject: Subject, progress: Progress) -> None:
            if live is not None:
                live.update(Text(_line(subject, progress), style="dim"))
            elif subject.path not in begun:
                begun.add(subject.path)
                terminal.say(f"measuring {subject.path}")

        for outcome in measure_all(
            subjects,
            settings=settings,
            threads=counts,
            data=data,
            frames=frames,
            sustained=sustained is not None,
            meter_for=lambda device: choose_meter(meter, device=device, estimate=estimate_power),
            on_progress=show,
        ):
            if outcome.report is not None:
                reports.append(outcome.report)
                terminal.say(f"kept {outcome.kept}")
            if outcome.error is not None:
                failures.append(outcome.error)
        if live is not None:
            live.update(Text(f"measured {len(reports)} of {len(subjects)}", style="dim"))
    if not reports and len(failures) == 1:
        raise failures[0]
    for failure in dict.fromkeys(failures):
        print_error(failure)
    if reports:
        terminal.show(bench_table(reports))
        terminal.emit(BenchReports(reports=tuple(reports)))
    # An engine that is missing here is no failure of the bench, as long as another one ran.
    serious = [error for error in failures if not isinstance(error, UnsupportedError)]
    if serious or not reports:
        raise typer.Exit(int((serious or failures)[0].exit_code))


def _thread_counts(text: str | None) -> tuple[int, ...] | None:
    from musgd_cli.errors import UsageError
    from musgd_cli.hardware import usable_cores

    if text is None:
        return None
    if text.strip() == "sweep":
        cores = usable_cores()
        doubled = [2**i for i in range(cores.bit_length()) if 2**i <= cores]
        return tuple(range(1, cores + 1)) if cores <= MOST_SWEPT else (*doubled, cores)
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = (-1,)
    if min(counts) < 0:
        raise UsageError(
            f"--threads {text} is no thread count", "try --threads 2, --threads 1,2 or sweep"
        )
    return counts


def _duration(
    duration: float | None, frames: int | None, sustained: float | None
) -> tuple[str, float | None]:
    from musgd_cli.errors import UsageError

    given = {"--duration": duration, "--frames": frames, "--sustained": sustained}
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} all say how long to measure", "leave one of them")
    return ("--duration", duration) if sustained is None else ("--sustained", sustained)


def _settings(
    options: dict[str, tuple[str, float | None]],
    target: str | None,
    assignments: list[str] | None,
) -> BenchSettings:
    from musgd_cli.commands.planning import settings_of
    from musgd_cli.hardware import detect
    from musgd_cli.settings import settle

    flags, spelling = settings_of(options, assignments)
    return settle(host=detect(), target=target, flags=flags, spelling=spelling).bench


def _line(subject: Subject, progress: Progress) -> str:
    parts = [subject.name]
    if progress.repeat:
        parts.append(f"{progress.threads} threads, {progress.repeat}/{progress.repeats}")
    share = f" {progress.done}/{progress.total}" if progress.total else ""
    parts.append(f"{progress.phase}{share}")
    return ": ".join(parts)
