"""``musgd report``: what bench measured, of one board or several, as a table, a page, a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from musgd_cli.commands.options import Json, Quiet


def report(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Reports (JSON), a folder of them, or a run. Default: the run benched last.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page that needs nothing beside it."),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the charts into a picture; takes matplotlib."),
    ] = None,
    meter: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="What an external meter wrote meanwhile: gives them power."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a FILE that is there.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show bench reports side by side: [bold]musgd report pi.json nano.json --html report.html[/]

    Reports are what musgd bench keeps in a run's bench/, or prints with --json. Those of
    several boards, models and data sets may be mixed: the page says what cannot be compared.
    Of a run or folder the newest report of each model, board, thread count and set of
    images is shown.
    """
    from musgd_cli.console import Terminal
    from musgd_cli.records import BenchReports
    from musgd_cli.report.reading import gather

    terminal = Terminal(as_json=as_json, quiet=quiet)
    for option, file, suffix in (("--html", html, ".html"), ("--png", png, ".png")):
        if file is not None:
            _require_free(option, file, suffix, force=force)
    reading = gather(paths or ())
    if reading.left_out:
        terminal.say(f"older reports left out: {reading.left_out}; name their files to see them")
    if reading.of_other_kinds:
        terminal.say(f"JSON files that are no bench report left out: {reading.of_other_kinds}")
    reports = reading.reports
    if meter is not None:
        from musgd_cli.bench.afterwards import with_power
        from musgd_cli.hardware.power.trace import read_trace

        trace = read_trace(meter)
        reports = tuple(with_power(report, trace, meter) for report in reports)
    if html is not None:
        from musgd_cli.report.page import render
        from musgd_cli.storage import write_text

        write_text(html, render(reports))
        terminal.say(f"wrote {html}")
    if png is not None:
        from musgd_cli.report.picture import draw

        draw(reports, png)
        terminal.say(f"wrote {png}")
    terminal.emit(BenchReports(reports=reports))
    if html is None and png is None and not as_json:
        from musgd_cli.report.terminal.bench import bench_table

        terminal.show(bench_table(reports))
        terminal.say("a page with charts: --html report.html; a picture: --png report.png")


def _require_free(option: str, file: Path, suffix: str, *, force: bool) -> None:
    """Refuse, before anything is read, a file that cannot or should not be written.

    Raises:
        UsageError: It is there, is a folder, or its name says that it is something else.
        MusgdError: Its folder cannot be written to.
    """
    from musgd_cli.errors import UsageError
    from musgd_cli.storage import require_writable

    if file.suffix.lower() != suffix:  # `--html a.json` would otherwise write over a report
        raise UsageError(
            f"{option} {file}: its name does not end in {suffix}", f"{option} report{suffix}"
        )
    if file.is_dir():
        raise UsageError(f"{file} is a folder", f"{option} {file / f'report{suffix}'}")
    if file.exists() and not force:
        raise UsageError(f"{file} exists already", "choose another name, or --force to replace it")
    require_writable(file.parent)
