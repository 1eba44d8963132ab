"""``musgd doctor``: which machine this is, and what stands in the way of its work."""

from __future__ import annotations

from pathlib import Path

from musgd_cli.commands.options import Json, Quiet, Root


def doctor(root: Root = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Tell which board this is and what ails it: [bold]musgd doctor[/]

    Exit code 4 when a check fails that stands in the way of the board's main job;
    0 when all are fine or merely advise. --quiet shows only the checks that failed.
    Where the board cannot be told, MUSGD_BOARD=NAME says it.
    """
    from musgd_cli.console import Terminal
    from musgd_cli.errors import CheckFailedError
    from musgd_cli.hardware import detect
    from musgd_cli.hardware.doctor import examine
    from musgd_cli.profiles import is_made_for, match
    from musgd_cli.records import DoctorReport
    from musgd_cli.report.terminal.host import doctor_report, doctor_verdict

    terminal = Terminal(as_json=as_json, quiet=quiet)
    where = (root or Path("/")).resolve()
    host = detect(where)
    profile = match(host)
    report = DoctorReport(host=host, profile=profile.name, checks=examine(host, where))
    if quiet:
        terminal.show(doctor_verdict(report))
    else:
        terminal.show(doctor_report(report, nearest=not is_made_for(profile, host)))
    terminal.emit(report)
    in_the_way = [check for check in report.checks if not check.ok and not check.advice]
    if in_the_way:
        raise CheckFailedError(
            f"in the way of this board's work: {', '.join(check.name for check in in_the_way)}",
            in_the_way[0].mend or "musgd doctor --help",
        )
