"""``musgd bench``: measure models on this machine and put them in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musgd_cli.commands.options import Data, Json, Quiet, Set, Target

if TYPE_CHECKING:
    from musgd_cli.bench.process import Progress
    from musgd_cli.bench.subject import Subject


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
        int | None,
        typer.Option(min=1, help="Time at least so many frames, in place of --duration."),
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
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Compare with an earlier report, or with what --json printed. Exit with 4 where "
            "one of the models cannot be measured.",
        ),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="FIGURE>LIMIT",
            help="Exit with 4 where a report is beyond: p50>40ms or, of the baseline, p50>1.05x, "
            "fps<-5%, map50_95<baseline-0.01. Within the noise of the repeats it only warns; what "
            "was not measured, or is estimated, fails. Repeatable.",
        ),
    ] = None,
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
    from musgd_cli.bench.comparison import compare, require_comparable, without_counterpart
    from musgd_cli.bench.thresholds import broken, parse_threshold, require_baseline, unmeasured
    from musgd_cli.commands.planning import (
        bench_settings,
        each_once,
        read_threads,
        warn_of_refused_meter,
    )
    from musgd_cli.console import Terminal, print_error
    from musgd_cli.errors import CheckFailedError, MusgdError, UnsupportedError
    from musgd_cli.hardware import detect, usable_cores
    from musgd_cli.hardware.power import choose_meter
    from musgd_cli.records import BenchReport, BenchReports, Broken
    from musgd_cli.report.terminal.bench import bench_table
    from musgd_cli.report.terminal.comparison import comparison_table
    from musgd_cli.runs import read_reports

    terminal = Terminal(as_json=as_json, quiet=quiet)
    counts = read_threads(threads)
    settings = bench_settings(
        {
            "bench.duration_s": _duration(duration, frames, sustained),
            "bench.threads": ("--threads", counts[0] if counts else None),
            "bench.repeats": _repeats(repeats, sustained),
        },
        target,
        assignments,
    )
    reports: list[BenchReport] = []
    unread: list[MusgdError] = []
    failures: list[MusgdError] = []
    missing: list[Broken] = []
    thresholds = [parse_threshold(text) for text in fail_if or ()]
    require_baseline(thresholds, given=against is not None)
    subjects = choose(paths or (), unread.append)
    baseline = () if against is None else read_reports(against)
    asked = [count or usable_cores() for count in counts or (settings.threads,)]
    if baseline:
        require_comparable(detect(), [subject.artifact for subject in subjects], asked, baseline)
    if meter is None and not estimate_power:
        warn_of_refused_meter(terminal)
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
                if outcome.report is None:
                    missing.append(
                        unmeasured(str(outcome.subject.path), outcome.threads, outcome.error.what)
                    )
        if live is not None:
            done = f"measured {len(reports)} of {len(reports) + len(missing)}"
            live.update(Text(done, style="dim"))
    told = each_once([*unread, *failures])
    if not reports and len(told) == 1:
        raise told[0]
    for failure in told:
        print_error(failure)
    beyond: tuple[Broken, ...] = ()
    is_gate = bool(thresholds or baseline)
    if reports:
        comparisons = compare(reports, baseline) if baseline else ()
        beyond = broken(thresholds, reports, comparisons)
        if is_gate:
            seen = {(one.artifact, one.threads) for one in missing}
            chosen = {str(subject.path) for subject in subjects}
            missing += (
                unmeasured(one.artifact, one.threads, "the baseline has it, the model is another")
                for one in without_counterpart(baseline, reports, chosen, asked)
                if (one.artifact, one.threads) not in seen
            )
            beyond += tuple(missing)
        terminal.show(bench_table(reports))
        if comparisons:
            terminal.show(comparison_table(comparisons))
        terminal.emit(BenchReports(reports=tuple(reports), comparisons=comparisons, broken=beyond))
    for one in beyond:
        if not one.certain:
            terminal.warn(one.what)
    if any(one.certain for one in beyond):
        raise CheckFailedError(
            "; ".join(one.what for one in beyond if one.certain),
            "find what changed, or move the limit; the reports are kept",
        )
    # An engine that is missing here is no failure of the bench, as long as another one ran; but
    # what a gate was to hold and could not is.
    serious = [
        error
        for error in told
        if not isinstance(error, UnsupportedError) or (is_gate and error in unread)
    ]
    if serious or not reports:
        raise typer.Exit(int((serious or told)[0].exit_code))


def _duration(
    duration: float | None, frames: int | None, sustained: float | None
) -> tuple[str, float | None]:
    from musgd_cli.errors import UsageError

    given = {"--duration": duration, "--frames": frames, "--sustained": sustained}
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} all say how long to measure", "leave one of them")
    return ("--duration", duration) if sustained is None else ("--sustained", sustained)


def _repeats(repeats: int | None, sustained: float | None) -> tuple[str, int | None]:
    from musgd_cli.bench.session import SUSTAINED_REPEATS
    from musgd_cli.errors import UsageError

    if sustained is None:
        return "--repeats", repeats
    if repeats is not None:
        raise UsageError(
            f"--repeats {repeats} says nothing of --sustained, which is one long process",
            "leave one of them",
        )
    return "--sustained", SUSTAINED_REPEATS


def _line(subject: Subject, progress: Progress) -> str:
    from musgd_cli.report.wording import count

    parts = [subject.name]
    if progress.repeat:
        parts.append(f"{count(progress.threads, 'thread')}, {progress.repeat}/{progress.repeats}")
    share = f" {progress.done}/{progress.total}" if progress.total else ""
    parts.append(f"{progress.phase}{share}")
    return ": ".join(parts)
