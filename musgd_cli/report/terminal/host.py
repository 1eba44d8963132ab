"""``musgd doctor`` for people: what this machine is, and what ails it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType
    from rich.text import Text

    from musgd_cli.records import Check, DoctorReport, Host

_UNKNOWN = "not told"


def doctor_report(report: DoctorReport, *, nearest: bool) -> RenderableType:
    """Return the facts, the checks with what to type for those that failed, and the sum.

    Args:
        nearest: No profile is made for this board; the report's is the nearest.
    """
    from rich.console import Group
    from rich.text import Text

    return Group(_facts(report, nearest), Text(), doctor_verdict(report, failed_only=False))


def doctor_verdict(report: DoctorReport, *, failed_only: bool = True) -> RenderableType:
    """Return the checks and their sum.

    Args:
        failed_only: Leave out the checks that are fine.
    """
    from rich.console import Group
    from rich.text import Text

    failed = [check for check in report.checks if not check.ok]
    shown = failed if failed_only else report.checks
    parts: list[RenderableType] = [_checks(shown), Text()] if shown else []
    if failed:
        parts += [*_mends(failed), Text()]
    return Group(*parts, _sum(report))


def _facts(report: DoctorReport, nearest: bool) -> RenderableType:
    from rich.box import ROUNDED
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _lines(report, nearest):
        table.add_row(name, Text(value or _UNKNOWN, style="" if value else "dim"))
    return Panel(
        table,
        box=ROUNDED,
        title=Text(report.host.board, style="bold cyan"),
        title_align="left",
        expand=False,
        padding=(0, 1),
    )


def _lines(report: DoctorReport, nearest: bool) -> Iterator[tuple[str, str | None]]:
    host = report.host
    cores = None if host.cores is None else f"{host.cores} cores"
    bits = None if host.bits is None else f"{host.bits}-bit"
    if host.model:
        yield "board", host.model
    yield "told by", host.decided_by
    note = f"the nearest: none is made for {host.board}" if nearest else None
    yield "profile", _joined(report.profile, note)
    yield "processor", _joined(host.cpu, cores, *(host.cpu_features or ()))
    yield "memory", _megabytes(host.ram_mb)
    if host.gpu:
        memory = _megabytes(host.gpu_memory_mb)
        yield "gpu", _joined(host.gpu, memory, host.jetpack and f"JetPack {host.jetpack}")
    yield "system", _joined(host.os, host.kernel and f"Linux {host.kernel}")
    yield "userland", _joined(host.arch, bits, *_surroundings(host))
    if host.python:
        yield "python", host.python
    installed = [f"{name} {version}" for name, version in host.runtimes.items() if version]
    if host.runtimes:
        yield "installed", _joined(*installed) or "no engine and no framework"
    yield "power", _joined(*host.power_meters) or "no meter"


def _megabytes(count: int | None) -> str | None:
    return None if count is None else f"{count} MB"


def _surroundings(host: Host) -> Iterator[str]:
    if host.container not in (None, "none"):
        yield f"in {host.container}"
    if host.emulated:
        yield "emulated"


def _joined(*parts: str | None) -> str | None:
    return " · ".join(part for part in parts if part) or None


def _mark(check: Check) -> Text:
    from rich.text import Text

    if check.ok:
        return Text("✓", style="green")
    return Text("!", style="yellow") if check.advice else Text("✗", style="bold red")


def _checks(checks: list[Check] | tuple[Check, ...]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for check in checks:
        table.add_row(_mark(check), check.name, Text(check.found), Text(check.needed))
    return table


def _mends(failed: list[Check]) -> Iterator[RenderableType]:
    from rich.text import Text

    # One unbroken line each, so that it can be copied; a terminal folds it by itself.
    for check in failed:
        line = Text.assemble(_mark(check), " ", (f"{check.name}: ", "bold"), check.mend or "")
        line.no_wrap, line.overflow = True, "ignore"
        yield line


def _sum(report: DoctorReport) -> RenderableType:
    from rich.text import Text

    failed = sum(not check.ok and not check.advice for check in report.checks)
    advised = sum(not check.ok and check.advice for check in report.checks)
    fine = len(report.checks) - failed - advised
    parts = [Text(f"{fine} fine", style="green")]
    if advised:
        parts.append(Text(f"{advised} could be better", style="yellow"))
    if failed:
        parts.append(Text(f"{failed} in the way", style="bold red"))
    return Text(" · ").join(parts)
