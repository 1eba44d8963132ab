"""Several artifacts measured one after the other, on the same images, each report kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from musgd_cli.bench.measurement import Progress, calibration_images, measure
from musgd_cli.bench.selection import data_of, report_file
from musgd_cli.data import load
from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.hardware import detect
from musgd_cli.hardware.power import best_meter
from musgd_cli.records import BenchReport, BenchSettings
from musgd_cli.runs import read_artifact
from musgd_cli.storage import require_writable, write_record


@dataclass(frozen=True)
class Outcome:
    """What came of one artifact: a report and where it is kept, or an error."""

    folder: Path
    report: BenchReport | None = None
    kept: Path | None = None
    error: MusgdError | None = None


def measure_all(
    folders: Sequence[Path],
    *,
    settings: BenchSettings,
    data: str | None = None,
    on_progress: Callable[[Path, Progress], None] | None = None,
) -> Iterator[Outcome]:
    """Measure artifacts in turn; what ails one does not keep the others from being measured.

    None is scored on an image that calibrated any of them: a table compares like with like.

    Args:
        folders: Of the artifacts.
        settings: See :func:`musgd_cli.bench.measurement.measure`.
        data: Data set; without one, the set that each artifact's run was trained on, if known.
        on_progress: Called with the artifact's folder as the work goes on.

    Raises:
        UsageError: An artifact's record or a data set cannot be read.
        MusgdError: Reports cannot be written where they belong.
    """
    exclude = calibration_images([read_artifact(folder) for folder in folders])
    data_sets = {folder: data or data_of(folder) for folder in folders}
    for folder, path in data_sets.items():
        if path is not None:
            _check_data(path, folder if data is None else None)
        require_writable(report_file(folder, 0, datetime.now()).parent)
    host, meter = detect(), best_meter()
    for folder in folders:
        try:
            report = measure(
                folder,
                settings=settings,
                host=host,
                data=data_sets[folder],
                exclude=exclude,
                meter=meter,
                on_progress=_bound(on_progress, folder),
            )
        except MusgdError as error:
            yield Outcome(folder, error=error)
            continue
        kept = report_file(folder, report.threads, datetime.now())
        write_record(kept, report)
        yield Outcome(folder, report=report, kept=kept)


def _bound(
    on_progress: Callable[[Path, Progress], None] | None, folder: Path
) -> Callable[[Progress], None] | None:
    return None if on_progress is None else lambda progress: on_progress(folder, progress)


def _check_data(path: str, of_run: Path | None) -> None:
    try:
        load(path)
    except UsageError as error:
        if of_run is None:
            raise
        raise UsageError(
            f"{of_run} was trained on a data set that is not here: {error.what}",
            "give the data set with --data",
        ) from error
