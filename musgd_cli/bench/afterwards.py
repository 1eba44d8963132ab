"""Power that an external meter handed over only after the run, joined to the run's report."""

from __future__ import annotations

from pathlib import Path

from musgd_cli.bench.measurement import power_figures
from musgd_cli.errors import UsageError
from musgd_cli.hardware.power.trace import Trace
from musgd_cli.records import BenchReport, PowerReading


def with_power(report: BenchReport, trace: Trace, file: Path) -> BenchReport:
    """Return a report with the power that a trace has for its timed frames.

    Args:
        report: Its repeats say when frames were timed.
        trace: By a clock that agrees with this machine's.
        file: What the trace was read from.

    Raises:
        UsageError: The trace does not cover every repeat, or has gaps or too few samples there.
    """
    if not report.repeats:
        raise UsageError(
            f"the report of {report.artifact} does not say when its frames were timed",
            "bench again with this version of musgd",
        )
    energies = [trace.energy_j(r.began, r.began + r.seconds) for r in report.repeats]
    measured = [energy_j for energy_j in energies if energy_j is not None]
    if len(measured) < len(energies):
        raise UsageError(
            f"{file} does not cover the run of {report.artifact}, which began {report.started}, "
            "has gaps in it, or too few samples in a repeat",
            "give the meter's file of that time, whose clock must agree with the machine's; for a "
            "slow meter, bench for longer",
        )
    seconds = sum(repeat.seconds for repeat in report.repeats)
    reading = PowerReading(
        energy_j=sum(measured),
        seconds=seconds,
        source=f"csv:{file.name}",
        scope="board",
        kind="measured",
        hz=trace.hz,
    )
    figures = power_figures(
        reading, idle_w=None, frame_s=seconds / report.n, fps=report.fps_end_to_end
    )
    return report.model_copy(update=figures)
