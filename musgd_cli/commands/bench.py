"""``musgd bench``: measure models on this machine and put them in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musgd_cli.commands.options import Data, Json, Quiet, Set, Target

if TYPE_CHECKING:
    from musgd_cli.bench.process import Progress
    from musgd_cli.bench.session import Outcome
    from musgd_cli.bench.subject import Subject
    from musgd_cli.bench.verdict import Verdict
    from musgd_cli.console import Terminal
    from musgd_cli.errors import MusgdError
    from musgd_cli.remote.session import Request


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
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="USER@BOARD",
            help="Measure on a board that has musgd, over ssh, in place of here. Repeatable: "
            "boards work side by side, and one table shows all.",
        ),
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(
            "--agent",
            metavar="USER@BOARD",
            help="The same on a Jetson Nano, which cannot run musgd: one file that needs Python "
            "3.6 and trtexec is copied there. Repeatable.",
        ),
    ] = None,
    emulated_speed: Annotated[
        bool,
        typer.Option(
            "--show-emulated-speed",
            help="Show the speed of an emulated machine too, which says nothing of the board that "
            "it plays.",
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
    run's bench/. With --host that is done on another board: what it needs is copied
    there by your own ssh, the reports come back.
    """
    from musgd_cli.bench import choose
    from musgd_cli.bench.comparison import require_comparable
    from musgd_cli.bench.thresholds import parse_threshold, require_baseline
    from musgd_cli.bench.verdict import judge
    from musgd_cli.commands.planning import bench_plan, read_threads
    from musgd_cli.console import Terminal
    from musgd_cli.hardware import detect, usable_cores
    from musgd_cli.hardware.power import choose_meter
    from musgd_cli.records import Host, Plan
    from musgd_cli.remote.session import Request
    from musgd_cli.runs import read_reports

    terminal = Terminal(as_json=as_json, quiet=quiet)
    counts = read_threads(threads)
    flags = {
        "bench.duration_s": _duration(duration, frames, sustained),
        "bench.repeats": _repeats(repeats, sustained),
    }
    if host or agent:
        _require_boards_can(meter, bool(agent), {"--frames": frames, "--sustained": sustained})
        ignored = {
            "--data": data,
            "--threads": threads,
            "--meter": meter,
            "--estimate-power": estimate_power or None,
        }
        _tell_agents_limits(terminal, ignored, host or [], agent or [])
    else:  # a board is told of --threads as it was typed, for it knows its cores
        flags["bench.threads"] = ("--threads", counts[0] if counts else None)

    def plan_for(machine: Host) -> Plan:
        return bench_plan(machine, flags, target, assignments)

    settings = plan_for(detect()).bench
    unread: list[MusgdError] = []
    thresholds = [parse_threshold(text) for text in fail_if or ()]
    require_baseline(thresholds, given=against is not None)
    subjects = choose(paths or (), unread.append)
    baseline = () if against is None else read_reports(against)

    def require(
        machine: Host, cores: int | None, only: Sequence[int] | None = None
    ) -> Sequence[int]:
        """Refuse a baseline of another machine, and return the thread counts asked for."""
        given = only or read_threads(threads, cores) or (plan_for(machine).bench.threads,)
        asked = [count or cores or 1 for count in given]
        if baseline:
            require_comparable(machine, [one.artifact for one in subjects], asked, baseline)
        return asked

    asked = None
    unforeseen = None
    if host or agent:
        request = Request(
            subjects=subjects,
            data=data,
            plan_for=plan_for,
            require=lambda machine, only: require(machine, machine.cores, only),
            options=_words(threads, frames, sustained, meter, estimate_power),
            decided=frozenset(() if threads is None else ("bench.threads",))
            | frozenset(() if sustained is None else flags),
        )
        outcomes, unforeseen = _measure_on_boards(terminal, request, host or [], agent or [])
    else:
        asked = require(detect(), usable_cores())
        outcomes = _measure_here(
            terminal,
            subjects,
            warn_of_meter=meter is None and not estimate_power,
            settings=settings,
            threads=counts,
            data=data,
            frames=frames,
            sustained=sustained is not None,
            meter_for=lambda device: choose_meter(meter, device=device, estimate=estimate_power),
        )
    chosen = {str(subject.path) for subject in subjects}
    verdict = judge(outcomes, thresholds, baseline, chosen, asked)
    _conclude(
        terminal,
        outcomes,
        unread,
        verdict,
        unforeseen,
        is_gate=bool(thresholds or baseline),
        emulated_speed=emulated_speed,
    )


def _measure_here(
    terminal: Terminal, subjects: list[Subject], *, warn_of_meter: bool, **options: Any
) -> list[Outcome]:
    """Measure on this machine. See `musgd_cli.bench.session.measure_all`."""
    from rich.text import Text

    from musgd_cli.bench import measure_all
    from musgd_cli.bench.verdict import without_report
    from musgd_cli.commands.planning import warn_of_refused_meter

    if warn_of_meter:
        warn_of_refused_meter(terminal)
    outcomes: list[Outcome] = []
    with terminal.live(Text()) as live:
        begun: set[Path] = set()

        def show(subject: Subject, progress: Progress) -> None:
            if live is not None:
                live.update(Text(_line(subject, progress), style="dim"))
            elif subject.path not in begun:
                begun.add(subject.path)
                terminal.say(f"measuring {subject.path}")

        for outcome in measure_all(subjects, on_progress=show, **options):
            outcomes.append(outcome)
            if outcome.kept is not None:
                terminal.say(f"kept {outcome.kept}")
        if live is not None:
            n_measured = len(outcomes) - len(without_report(outcomes))
            live.update(Text(f"measured {n_measured} of {len(outcomes)}", style="dim"))
    return outcomes


def _measure_on_boards(
    terminal: Terminal, request: Request, hosts: list[str], agents: list[str]
) -> tuple[list[Outcome], Exception | None]:
    """Measure over ssh. See `musgd_cli.remote.session.measure_on`.

    Returns:
        What came of it, and what nobody foresaw on one of the boards: the others' outcomes are to
        be shown first.
    """
    from contextlib import closing

    from musgd_cli.remote import measure_on

    def tell(board: str, what: str, *, warns: bool = False, mend: str | None = None) -> None:
        if warns:
            terminal.warn(f"{board}: {what}", mend)
        else:
            terminal.say(f"{board}: {what}")

    outcomes: list[Outcome] = []
    with closing(measure_on(hosts, agents, request, tell)) as found:
        try:
            outcomes.extend(found)
        except Exception as error:
            if not outcomes:
                raise
            return outcomes, error
    return outcomes, None


def _conclude(
    terminal: Terminal,
    outcomes: list[Outcome],
    unread: list[MusgdError],
    verdict: Verdict,
    unforeseen: Exception | None,
    *,
    is_gate: bool,
    emulated_speed: bool,
) -> None:
    """Show what came of it, and end with the code that it deserves."""
    from musgd_cli.commands.planning import each_once
    from musgd_cli.console import print_error
    from musgd_cli.errors import CheckFailedError, UnsupportedError
    from musgd_cli.records import BenchReports
    from musgd_cli.report.terminal.bench import bench_table
    from musgd_cli.report.terminal.comparison import comparison_table

    reports = [outcome.report for outcome in outcomes if outcome.report is not None]
    failures = (outcome.error for outcome in outcomes if outcome.error is not None)
    told = each_once([*unread, *failures])
    if not reports and len(told) == 1 and unforeseen is None:
        raise told[0]
    for failure in told:
        print_error(failure)
    beyond = verdict.broken
    if reports:
        terminal.show(bench_table(reports, emulated_speed=emulated_speed))
        if verdict.comparisons:
            terminal.show(comparison_table(verdict.comparisons))
        # A record holds what was measured, and host.emulated says on what.
        if terminal.as_json and any(report.host.emulated for report in reports):
            terminal.warn("an emulator's speed is not the board's: see each report's host.emulated")
        terminal.emit(
            BenchReports(reports=tuple(reports), comparisons=verdict.comparisons, broken=beyond)
        )
        for one in beyond:
            if not one.certain:
                terminal.warn(one.what)
    if unforeseen is not None:
        raise unforeseen
    if reports and any(one.certain for one in beyond):
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


def _words(
    threads: str | None,
    frames: int | None,
    sustained: float | None,
    meter: str | None,
    estimate_power: bool,
) -> tuple[str, ...]:
    """Return options that a board's musgd is told as they were typed here."""
    options = {
        "--threads": threads,
        "--frames": frames,
        "--sustained": sustained,
        "--meter": meter,
    }
    words = [f"{name}={value}" for name, value in options.items() if value is not None]
    return (*words, *(["--estimate-power"] if estimate_power else []))


def _require_boards_can(
    meter: str | None, has_agent: bool, lengths: dict[str, float | None]
) -> None:
    """Refuse what boards over ssh cannot be asked for.

    Raises:
        UsageError: One of them.
    """
    from musgd_cli.errors import UsageError

    if meter is not None and meter.lower().endswith(".csv"):
        raise UsageError(
            f"--meter {meter} is a file of this machine, which a board does not see",
            "leave it out; afterwards: musgd report RUN --meter FILE.csv",
        )
    for option, value in lengths.items():
        if has_agent and value is not None:
            raise UsageError(
                f"{option} is nothing that the agent on a Jetson Nano knows",
                "say --duration and --repeats",
            )


def _tell_agents_limits(
    terminal: Terminal, options: Mapping[str, object], hosts: list[str], agents: list[str]
) -> None:
    """Tell of options that only boards with musgd know.

    Raises:
        UsageError: There is no such board.
    """
    from musgd_cli.errors import UsageError

    given = [option for option, value in options.items() if value is not None]
    if not agents or not given:
        return
    what = f"{' and '.join(given)}: nothing that the agent on a Jetson Nano knows"
    if not hosts:
        raise UsageError(what, "leave it out" if len(given) == 1 else "leave them out")
    terminal.warn(f"{what}, so for the hosts only")


def _line(subject: Subject, progress: Progress) -> str:
    from musgd_cli.report.wording import count

    parts = [subject.name]
    if progress.repeat:
        parts.append(f"{count(progress.threads, 'thread')}, {progress.repeat}/{progress.repeats}")
    share = f" {progress.done}/{progress.total}" if progress.total else ""
    parts.append(f"{progress.phase}{share}")
    return ": ".join(parts)
