"""Which bench reports are meant by what was typed, read and checked."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from musgd_cli.errors import UsageError
from musgd_cli.paths import RUNS
from musgd_cli.records import BenchReport
from musgd_cli.report.lineup import Lineup, ground_of
from musgd_cli.runs import RunFolder, read_reports
from musgd_cli.storage import read_json


@dataclass(frozen=True)
class Reading:
    """Reports in the order they were named, each once."""

    reports: tuple[BenchReport, ...]
    left_out: int
    """Older ones of the same model, machine, thread count and images in the same folder."""
    of_other_kinds: int
    """JSON files in a folder that hold no report."""


def gather(specs: Sequence[str], root: Path = RUNS) -> Reading:
    """Read what ``musgd bench`` kept or printed.

    Args:
        specs: A report, an object of reports as ``bench --json`` prints it, a run (its folder or
            its name) or a folder of reports. Of a folder the newest report of each model, machine,
            thread count and set of images is taken; of files all. Without any: the run that was
            benched last.
        root: Where runs live.

    Raises:
        UsageError: A file is no report, or there is none in a folder.
    """
    read: list[BenchReport] = []
    left_out = of_other_kinds = 0
    for spec in specs or (str(_benched_last(root)),):
        path = _find(spec, root)
        if path.is_dir():
            found, others = _of_folder(path)
            newest = _newest(found)
            left_out += len(found) - len(newest)
            of_other_kinds += others
        else:
            newest = list(read_reports(path))
        read += [report for report in newest if report not in read]
    return Reading(tuple(read), left_out, of_other_kinds)


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
    return next(
        (path for fits in (_holds_reports, _is_run) for path in places if fits(path)), places[0]
    )


def _holds_reports(path: Path) -> bool:
    return path.is_file() or any(map(_looks_like_reports, _files(path)))


def _is_run(folder: Path) -> bool:
    run = RunFolder(folder)
    return run.plan_file.is_file() or run.finished or run.artifacts.is_dir()


def _files(folder: Path) -> list[Path]:
    """Return the files of a run's reports, or all that may be one in another folder."""
    kept = sorted(folder.glob("bench/*.json"))
    return kept if kept or _is_run(folder) else sorted(folder.glob("*.json"))


def _of_folder(folder: Path) -> tuple[list[BenchReport], int]:
    """Read a folder's reports, and count what else of JSON lies among them."""
    files = _files(folder)
    kept = [file for file in files if _looks_like_reports(file)]
    if not kept:
        if _is_run(folder):
            what = f"there is no bench report of the run {folder} yet"
        else:
            others = f": its {len(files)} JSON files are something else" if files else ""
            what = f"there is no bench report in {folder}{others}"
        raise UsageError(what, f"musgd bench {shlex.quote(str(folder))}")
    return [report for file in kept for report in read_reports(file)], len(files) - len(kept)


def _looks_like_reports(file: Path) -> bool:
    """Tell a report, which may be damaged, from what another command wrote."""
    data = read_json(file)
    return isinstance(data, dict) and ("reports" in data or "latency_ms" in data)


def _newest(reports: Sequence[BenchReport]) -> list[BenchReport]:
    """Keep of each model, machine, thread count and set of images the report that began last."""
    newest: dict[tuple[object, ...], BenchReport] = {}
    for entry in Lineup(reports).entries:
        report = entry.report
        key = (
            entry.machine,
            report.artifact_sha256,
            entry.folder,
            report.threads,
            report.sustained,
            ground_of(report),
        )
        known = newest.get(key)
        if known is None or (report.started or "") >= (known.started or ""):
            newest[key] = report
    return list(newest.values())
