"""Reports side by side: what each is called, where it ran, and what it is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING

from musgd_cli.report.wording import Remark, count, remarks, runtime_name

if TYPE_CHECKING:
    from musgd_cli.records import BenchReport, Host


@dataclass(frozen=True)
class Entry:
    """One report among others."""

    report: BenchReport
    name: str
    """No other entry has it."""
    machine: str
    """The board; numbered where several machines are one board."""

    @property
    def name_there(self) -> str:
        """The name without the machine, for where that is told already."""
        return self.name.replace(f", {self.machine}", "")

    @cached_property
    def folder(self) -> str:
        """The artifact's own name, that of its folder."""
        return PurePath(self.report.artifact).name

    @cached_property
    def remarks(self) -> tuple[Remark, ...]:
        """What must be known before its figures are quoted."""
        return remarks(self.report)

    @property
    def has_model(self) -> bool:
        """It is no measurement of the harness alone."""
        return self.report.runtime != "null"

    @property
    def is_timed(self) -> bool:
        """Its speed is that of the machine it names."""
        return not self.report.host.emulated

    @property
    def estimated(self) -> bool:
        """Its power and energy are a model's word."""
        return self.report.power_kind == "estimated"


@dataclass(frozen=True)
class Ground:
    """What accuracies must have in common to be compared: the images they were scored on."""

    data: str
    split: str
    n_images: int
    n_excluded: int

    def __str__(self) -> str:
        left_out = f", {self.n_excluded} left out" if self.n_excluded else ""
        return f"{self.data}, {self.split} ({count(self.n_images, 'image')}{left_out})"


def ground_of(report: BenchReport) -> Ground | None:
    """Return what a report's accuracy was scored on, or ``None`` where it was not."""
    if report.data is None or report.map50_95 is None:
        return None
    name = PurePath(report.data).name
    return Ground(name, report.split or "", report.n_images, report.n_excluded)


class Lineup:
    """Reports in the order they were given.

    Args:
        reports: At least one, of any machines, models and data sets.
    """

    def __init__(self, reports: Sequence[BenchReport]) -> None:
        self.machines = _machines(reports)
        """Each machine's name and what is known of it, as the first report from it says."""
        of_report = [_name_of(self.machines, report.host) for report in reports]
        names = _names(reports, of_report)
        self.entries = tuple(map(Entry, reports, names, of_report))

    def has_many(self, fact: Callable[[BenchReport], object]) -> bool:
        """Tell whether the reports differ in something."""
        return len({fact(entry.report) for entry in self.entries}) > 1

    def of_machine(self, machine: str) -> list[Entry]:
        """Return the entries that were measured there."""
        return [entry for entry in self.entries if entry.machine == machine]

    def grounds(self) -> dict[Ground, list[Entry]]:
        """Return the entries whose accuracy is known, by what it was scored on."""
        found: dict[Ground, list[Entry]] = {}
        for entry in self.entries:
            ground = ground_of(entry.report)
            if ground is not None:
                found.setdefault(ground, []).append(entry)
        return found

    def speed_up(self, entry: Entry) -> float | None:
        """Return how many times its float parent's speed, where both were timed alike."""
        parent = self._parent(entry)
        if parent is None or not entry.has_model or not entry.is_timed:
            return None
        return parent.report.latency_ms.p50 / entry.report.latency_ms.p50

    def _parent(self, entry: Entry) -> Entry | None:
        """Find the float parent: those of several targets can be the same file."""
        wanted = entry.machine, entry.report.parent_sha256, entry.report.threads
        rows = [
            other
            for other in self.entries
            if (other.machine, other.report.artifact_sha256, other.report.threads) == wanted
        ]
        own = (row for row in rows if row.report.target == entry.report.target)
        return next(own, rows[0] if rows else None)


# ---------------------------------------------------------------------------------------- machines


def identity(host: Host) -> tuple[object, ...]:
    """Return what makes a machine the same one in two reports."""
    return (
        host.board,
        host.model,
        host.cpu,
        host.cores,
        host.ram_mb,
        host.gpu,
        host.os,
        host.arch,
        host.container,
        host.emulated,
    )


def _machines(reports: Sequence[BenchReport]) -> dict[str, Host]:
    hosts: dict[tuple[object, ...], Host] = {}
    for report in reports:
        hosts.setdefault(identity(report.host), report.host)
    named: dict[str, Host] = {}
    for host in hosts.values():
        number = sum(other.board == host.board for other in named.values()) + 1
        named[host.board if number == 1 else f"{host.board} ({number})"] = host
    return named


def _name_of(machines: dict[str, Host], host: Host) -> str:
    return next(name for name, known in machines.items() if identity(known) == identity(host))


# ------------------------------------------------------------------------------------------- names


def _names(reports: Sequence[BenchReport], machines: Sequence[str]) -> list[str]:
    """Name each report by what runs and by what tells it from the others, no more."""
    one_size = len({report.imgsz for report in reports}) == 1
    one_thread_count = len({report.threads for report in reports}) == 1
    one_machine = len(set(machines)) == 1
    short = [
        ", ".join(
            [
                f"{runtime_name(report)} {report.precision}",
                *([] if one_size else [f"{report.imgsz} px"]),
                *([] if one_thread_count else [count(report.threads, "thread")]),
                *([] if one_machine else [machine]),
            ]
        )
        for report, machine in zip(reports, machines, strict=True)
    ]
    return _told_apart(short, list(map(_marks, reports)))


def _marks(report: BenchReport) -> tuple[str, ...]:
    """Return what can tell twins apart: folder, run, path, length, and when it was measured."""
    path = PurePath(report.artifact)
    run = path.parts[-3] if len(path.parts) >= 3 and path.parts[-2] == "artifacts" else ""
    started = (report.started or "")[:19].replace("T", " ")
    return path.name, run, str(path), "sustained" if report.sustained else "", started


def _told_apart(names: Sequence[str], marks: Sequence[Sequence[str]]) -> list[str]:
    """Add to each name that is not alone the first kind of mark that tells it from its twins."""
    twins: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        twins.setdefault(name, []).append(index)
    told = list(names)
    for alike in twins.values():
        kinds = zip(*(marks[index] for index in alike), strict=True)
        by_number = [f"no. {number}" for number in range(1, len(alike) + 1)]
        found = next((kind for kind in kinds if len(set(kind)) == len(alike)), by_number)
        for index, mark in zip(alike, found, strict=True) if len(alike) > 1 else ():
            told[index] = f"{names[index]} ({mark})" if mark else names[index]
    return told


# ----------------------------------------------------------------------------------------- the best


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which points no other one beats.

    Args:
        points: Of each its cost (less is better) and its worth (more is better).

    Returns:
        Indices, by rising cost and worth: a point is left out when another one costs no more and
        is worth no less, and is better in one of the two.
    """
    front: list[int] = []
    by_cost = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    for index in by_cost:
        best = points[front[-1]] if front else None
        if best is None or points[index][1] > best[1] or points[index] == best:
            front.append(index)
    return front
