"""Speed, accuracy, memory, power and heat of artifacts, each measured in a process of its own.

The doors below import their rooms when called, so that importing this package costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musgd_cli.bench.measurement import OnProgress, Progress
    from musgd_cli.bench.session import Outcome
    from musgd_cli.hardware.power import PowerMeter
    from musgd_cli.records import BenchReport, BenchSettings, Host


def choose(paths: Sequence[str]) -> list[Path]:
    """Return the artifact folders that paths name. See `musgd_cli.bench.selection.choose`."""
    from musgd_cli.bench import selection

    return selection.choose(paths)


def measure(
    folder: Path,
    *,
    settings: BenchSettings,
    host: Host,
    data: str | None = None,
    exclude: Collection[str] = frozenset(),
    meter: PowerMeter | None = None,
    on_progress: OnProgress | None = None,
) -> BenchReport:
    """Measure one artifact. See `musgd_cli.bench.measurement.measure`."""
    from musgd_cli.bench import measurement

    return measurement.measure(
        folder,
        settings=settings,
        host=host,
        data=data,
        exclude=exclude,
        meter=meter,
        on_progress=on_progress,
    )


def measure_all(
    folders: Sequence[Path],
    *,
    settings: BenchSettings,
    data: str | None = None,
    on_progress: Callable[[Path, Progress], None] | None = None,
) -> Iterator[Outcome]:
    """Measure artifacts in turn. See `musgd_cli.bench.session.measure_all`."""
    from musgd_cli.bench import session

    return session.measure_all(folders, settings=settings, data=data, on_progress=on_progress)
