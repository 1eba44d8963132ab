"""Reports side by side: what each is called, where it ran, and what it is held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath
from posixpath import normpath
from typing import TYPE_CHECKING

from musgd_cli.report.wording import (
    Remark,
    count,
    data_name,
    machine_in_words,
    remarks,
    runtime_name,
)

if TYPE_CHECKING:
    from musgd_cli.records import BenchReport, Host


@dataclass(frozen=True)
class Entry:
    """One report among others."""

    report: BenchReport
    name: str
    """No other entry has it."""
    machine: str
    """The board; named or numbered where several machines are one board."""
    emulated_speed: bool = False
    """An emulator's speed is to be shown too."""

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
        return remarks(self.report, emulated_speed=self.emulated_speed)

    @property
    def has_model(self) -> bool:
        """It is no measurement of the harness alone."""
        return self.report.runtime != "null"

    @property
    def is_timed(self) -> bool:
        """Its speed is that of the machine it names, or asked for all the same."""
        return self.emulated_speed or not self.report.host.emulated

    @property
    def estimated(self) -> bool:
        """Its power and energy are a model's word."""
        return self.report.power_kind == "estimated"


@dataclass(frozen=True)
class Ground:
    """What accuracies must have in common to be compared: the images they were scored on."""

    path: str
    """Of the data set's file: as far as it is the same wherever it was scored."""
    name: str
    """What the data set is called here."""
    split: str
    n_images: int
    n_excluded: int
    n_objects: tuple[int, int, int]
    """Small, medium and large: sets of one name seldom have as many of each."""

    def __str__(self) -> str:
        left_out = f", {self.n_excluded} left out" if self.n_excluded else ""
        return f"{self.name}, {self.split} ({count(self.n_images, 'image')}{left_out})"


def ground_of(report: BenchReport) -> Ground | None:
    """Return what a report's accuracy was scored on, or ``None`` where it was not."""
    if report.data is None or report.map50_95 is None:
        return None
    return Ground(
        path=normpath(report.data),
        name=data_name(report.data),
        split=report.split or "",
        n_images=report.n_images,
        n_excluded=report.n_excluded,
        n_objects=(report.n_small, report.n_medium, report.n_large),
    )


class Lineup:
    """Reports in the order they were given.

    Args:
        reports: At least one, of any machines, models and data sets.
        emulated_speed: Show an emulator's speed too, which is no board's.
    """

    def __init__(self, reports: Sequence[BenchReport], *, emulated_speed: bool = False) -> None:
        of_report = _machine_names(reports)
        names = _names(reports, of_report)
        self.machines: dict[str, list[Host]] = {}
        """Each machine's name and what its reports say of it: its system may have been updated."""
        for name, report in zip(of_report, reports, strict=True):
            hosts = self.machines.setdefault(name, [])
            hosts += [report.host] if report.host not in hosts else []
        self.entries = tuple(
            Entry(*of_one, emulated_speed) for of_one in zip(reports, names, of_report, strict=True)
        )

    def has_many(self, fact: Callable[[BenchReport], object]) -> bool:
        """Tell whether the reports differ in something."""
        return len({fact(entry.report) for entry in self.entries}) > 1

    def of_machine(self, machine: str) -> list[Entry]:
        """Return the entries that were measured there."""
        return [entry for entry in self.entries if entry.machine == machine]

    def about_machine(self, machine: str) -> str:
        """Return its processor, cores and system in words, each of the systems it had."""
        return "; ".join(dict.fromkeys(map(machine_in_words, self.machines[machine])))

    @cached_property
    def grounds(self) -> dict[Ground, list[Entry]]:
        """The entries whose accuracy is known, by what it was scored on.

        On one machine a set is the same where its path is. Another machine keeps it elsewhere:
        there the folder's and the file's name must agree, unless one of them has two such sets.
        """
        scored = [(e, ground) for e in self.entries if (ground := ground_of(e.report)) is not None]
        paths: dict[tuple[Ground, str], set[str]] = {}
        for entry, ground in scored:
            paths.setdefault((_anywhere(ground), entry.machine), set()).add(ground.path)
        ambiguous = {ground for (ground, _), known in paths.items() if len(known) > 1}
        found: dict[Ground, list[Entry]] = {}
        for entry, ground in scored:
            shared = _anywhere(ground)
            found.setdefault(ground if shared in ambiguous else shared, []).append(entry)
        return dict(zip(_named_apart(list(found)), found.values(), strict=True))

    def said(self, say: Callable[[BenchReport], str]) -> list[str]:
        """Say something of the reports: once where it is true of all, else with whose it is.

        An empty text says nothing.
        """
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.has_model or len(self.entries) == 1:
                found.setdefault(say(entry.report), []).append(entry)
        if len(found) == 1:
            return list(filter(None, found))
        return [f"{text} ({self.who(entries)})" for text, entries in found.items() if text]

    def who(self, entries: Sequence[Entry]) -> str:
        """Name some entries: by their machines where those have no other model."""
        machines = list(dict.fromkeys(entry.machine for entry in entries))
        models = [e for machine in machines for e in self.of_machine(machine) if e.has_model]
        whole = len(models) == sum(entry.has_model for entry in entries)
        return ", ".join(machines) if whole else "; ".join(entry.name for entry in entries)

    def remarks(self) -> Iterator[tuple[list[Entry], str]]:
        """Yield what must be known of some reports, each said once with those it is true of."""
        flagged: dict[str, list[tuple[Entry, Remark]]] = {}
        for entry in self.entries:
            for remark in entry.remarks:
                flagged.setdefault(remark.flag, []).append((entry, remark))
        for found in flagged.values():
            remark = found[0][1]
            text = remark.text if len(found) == 1 else remark.of_several or remark.text
            yield [entry for entry, _ in found], text

    def incomparable(self) -> Iterator[tuple[str, str]]:
        """Yield which figures must not be held against each other, and why."""
        scopes = sorted({e.report.power_scope for e in self.entries if e.report.power_scope})
        if len(scopes) > 1:
            yield "power", f"figures of different scopes ({', '.join(scopes)}) cannot be compared"
        if len(self.grounds) > 1:
            named = "; ".join(map(str, self.grounds))
            yield "accuracy", f"scores on different images cannot be compared ({named})"

    def speed_up(self, entry: Entry) -> float | None:
        """Return how many times its float parent's speed, where both were timed alike."""
        parent = self._parent(entry)
        if parent is None or not entry.has_model or not entry.is_timed:
            return None
        p50 = entry.report.latency_ms.p50
        return parent.report.latency_ms.p50 / p50 if p50 else None

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


_RAM_TOLERANCE = 0.05
"""Kernels of one board, and what its GPU is given, leave more or less of it."""


def _is_same(report: BenchReport, known: BenchReport) -> bool:
    """Tell whether two reports' machines are one: its system may have been updated in between."""
    host, other = report.host, known.host
    alike = all(
        getattr(host, fact) == getattr(other, fact)
        for fact in ("board", "model", "cpu", "cores", "gpu", "arch", "container", "emulated")
    )
    names = {report.reached_as, known.reached_as} - {None}
    if not alike or len(names) > 1:
        return False
    if host.ram_mb is None or other.ram_mb is None:
        return host.ram_mb is other.ram_mb
    most = max(host.ram_mb, other.ram_mb)
    return abs(host.ram_mb - other.ram_mb) <= _RAM_TOLERANCE * most


def _machine_names(reports: Sequence[BenchReport]) -> list[str]:
    """Name each report's machine after its board.

    Where several machines are one board, also by what they are called over ssh, or numbered.
    """
    machines: list[BenchReport] = []
    of_report = []
    for report in reports:
        index = next((i for i, one in enumerate(machines) if _is_same(report, one)), len(machines))
        machines += [report] if index == len(machines) else []
        of_report.append(index)
    boards = [one.host.board for one in machines]
    names: list[str] = []
    for i, one in enumerate(machines):
        number = boards[: i + 1].count(one.host.board)
        mark = one.reached_as if boards.count(one.host.board) > 1 else None
        mark = mark or (str(number) if number > 1 else None)
        names.append(f"{one.host.board} ({mark})" if mark else one.host.board)
    return [names[index] for index in of_report]


# ---------------------------------------------------------------------------------------- data sets


def _anywhere(ground: Ground) -> Ground:
    """Return it as another machine would know it: by its folder's and its file's name."""
    return replace(ground, path=str(PurePath(*PurePath(ground.path).parts[-2:])))


def _named_apart(grounds: Sequence[Ground]) -> list[Ground]:
    kinds = [
        (
            str(PurePath(*PurePath(ground.path).parts[-2:])),
            ground.path,
            "{}, objects {}/{}/{}".format(ground.path, *ground.n_objects),
        )
        for ground in grounds
    ]
    marks = _telling_apart(list(map(str, grounds)), kinds)
    return [
        replace(ground, name=mark) if mark else ground
        for ground, mark in zip(grounds, marks, strict=True)
    ]


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
    marks = _telling_apart(short, list(map(_marks, reports)))
    return [f"{name} ({mark})" if mark else name for name, mark in zip(short, marks, strict=True)]


def _marks(report: BenchReport) -> tuple[str, ...]:
    """Return what can tell twins apart: folder, run, path, length, and when it was measured."""
    path = PurePath(report.artifact)
    run = path.parts[-3] if len(path.parts) >= 3 and path.parts[-2] == "artifacts" else ""
    started = (report.started or "")[:19].replace("T", " ")
    return path.name, run, str(path), "sustained" if report.sustained else "", started


def _telling_apart(names: Sequence[str], marks: Sequence[Sequence[str]]) -> list[str]:
    """Return of each name that is not alone the first kind of mark that tells it from its twins."""
    twins: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        twins.setdefault(name, []).append(index)
    told = [""] * len(names)
    for alike in twins.values():
        kinds = zip(*(marks[index] for index in alike), strict=True)
        by_number = [f"no. {number}" for number in range(1, len(alike) + 1)]
        found = next((kind for kind in kinds if len(set(kind)) == len(alike)), by_number)
        for index, mark in zip(alike, found, strict=True) if len(alike) > 1 else ():
            told[index] = mark
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
