"""Which bench reports are meant by what was typed, read and checked."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from musgd_cli.errors import UsageError
from musgd_cli.records import BenchReport, BenchReports
from musgd_cli.report.lineup import identity
from musgd_cli.runs import RUNS
from musgd_cli.storage import read_json, read_record


@dataclass(frozen=True)
class Reading:
    """Reports in the order they were named, each once."""

    reports: tuple[BenchReport, ...]
    left_out: int
    """Older ones of the same model, machine and thread count in the same folder."""


def read_reports(specs: Sequence[str], root: Path = RUNS) -> Reading:
    """Read what ``musgd bench`` kept or printed.

    Args:
        specs: A report, an object of reports as ``bench --json`` prints it, a run (its folder or
            its name) or a folder of reports. Of a folder the newest report of each model, machine
            and thread count is taken; of files all. Without any: the run that was benched last.
        root: Where runs live.

    Raises:
        UsageError: A file is no report, or there is none in a folder.
    """
    read: list[BenchReport] = []
    left_out = 0
    for spec in specs or (str(_benched_last(root)),):
        path = _find(spec, root)
        found = _of_folder(path) if path.is_dir() else list(_of_file(path))
        newest = _newest(found) if path.is_dir() else found
        left_out += len(found) - len(newest)
        read += [report for report in newest if report not in read]
    return Reading(tuple(read), left_out)


def _benched_last(root: Path) -> Path:
    kept = list(root.glob("*/bench/*.json"))
    if not kept:
        raise UsageError(f"no bench report in {root}", "musgd bench, or name a report's file")
    return max(kept, key=lambda file: file.stat().st_mtime).parent.parent


def _find(spec: str, root: Path) -> Path:
    """Return the path that is meant: a run is named after its data, whose folder may be here."""
    places = [path for path in (Path(spec), root / spec) if path.exists()]
    if not places:
        known = sorted({file.parent.parent.name for file in root.glob("*/bench/*.json")})
        raise UsageError(
            f"{spec} does not exist",
            f"runs with reports: {', '.join(known)}" if known else "musgd bench makes reports",
        )
    return next((path for path in places if path.is_file() or _files(path)), places[0])


def _files(folder: Path) -> list[Path]:
    """Return the reports' files of a run, or those that lie in a folder."""
    return sorted(folder.glob("bench/*.json")) or sorted(folder.glob("*.json"))


def _of_folder(folder: Path) -> list[BenchReport]:
    files = _files(folder)
    if not files:
        raise UsageError(
            f"there is no bench report in {folder}", f"musgd bench {shlex.quote(str(folder))}"
        )
    return [report for file in files for report in _of_file(file)]


def _of_file(file: Path) -> Iterable[BenchReport]:
    data = read_json(file)
    if isinstance(data, dict) and "reports" in data:
        reports = read_record(file, BenchReports).reports
        if not reports:
            raise UsageError(f"{file} holds no report", "musgd bench --json prints some")
        return reports
    return (read_record(file, BenchReport),)


def _newest(reports: Sequence[BenchReport]) -> list[BenchReport]:
    """Keep of each model, machine and thread count the report that began last."""
    newest: dict[tuple[object, ...], BenchReport] = {}
    for report in reports:
        key = (
            identity(report.host),
            report.artifact_sha256,
            Path(report.artifact).name,
            report.threads,
            report.sustained,
        )
        known = newest.get(key)
        if known is None or (report.started or "") >= (known.started or ""):
            newest[key] = report
    return list(newest.values())
