"""What models are worth against what they cost: the points, and which of them no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from musgd_cli.report.lineup import Entry, pareto_front


@dataclass(frozen=True)
class Point:
    """An entry by its accuracy and one cost."""

    entry: Entry
    cost: float
    worth: float
    """mAP50-95."""
    interval: tuple[float, float] | None = None
    """Of the cost."""
    estimated: bool = False
    """The cost is no measurement: it is drawn hollow and never on the front."""
    scope: str | None = None
    """What the cost is of, where that differs."""

    @property
    def group(self) -> str:
        """Only within it can costs be compared."""
        return self.entry.machine if self.scope is None else f"{self.entry.machine}, {self.scope}"


def latency_points(entries: Sequence[Entry]) -> list[Point]:
    """Return p50 in ms of those that were scored and timed on the machine they name."""
    return [
        Point(e, e.report.latency_ms.p50, e.report.map50_95, e.report.p50_interval_ms)
        for e in entries
        if e.has_model and e.is_timed and e.report.map50_95 is not None
    ]


def energy_points(entries: Sequence[Entry]) -> list[Point]:
    """Return joules a frame of those that were scored and metered or estimated."""
    one_scope = len({e.report.power_scope for e in entries if e.report.power_scope}) <= 1
    return [
        Point(
            entry,
            entry.report.energy_per_frame_j,
            entry.report.map50_95,
            estimated=entry.estimated,
            scope=None if one_scope else entry.report.power_scope,
        )
        for entry in entries
        if entry.has_model
        and entry.is_timed
        and entry.report.energy_per_frame_j is not None
        and entry.report.map50_95 is not None
    ]


def fronts(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Return each group's Pareto front, by rising cost; only what was measured is on it."""
    found = {}
    for group in dict.fromkeys(point.group for point in points):
        real = [point for point in points if point.group == group and not point.estimated]
        found[group] = [real[i] for i in pareto_front([(p.cost, p.worth) for p in real])]
    return found
