"""Limits that fail a bench: ``--fail-if "p50>1.05x"``.

A threshold is a figure, ``>``, ``>=``, ``<`` or ``<=``, and a limit::

    p50>40          p50>40ms        an absolute limit, in the figure's own unit
    p50>1.05x       p50>+5%         a ratio to the baseline
    map50_95<baseline-0.01          a difference to the baseline

It must not fail at random. Where the report has repeats enough to tell how far another run would be
off, a figure beyond the limit breaks it only when its whole 95 % interval is beyond. Otherwise the
point decides. What cannot be held to a limit breaks it: a gate that is silent about what it did not
see would pass whatever is not measured.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, cast

from musgd_cli.bench.figures import Figure, find
from musgd_cli.bench.interval import prediction_interval
from musgd_cli.errors import UsageError
from musgd_cli.records import BenchReport, Broken, Comparison

EXAMPLES = 'such as "p50>1.05x", "p50>40ms" or "map50_95<baseline-0.01"'

Operator = Literal[">", ">=", "<", "<="]
Measure = Literal["figure", "ratio", "difference"]
"""What is held to the limit: the figure itself, or what the baseline makes of it."""

Interval = tuple[float, float]

_BEYOND: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_THRESHOLD = re.compile(r"\s*(?P<figure>[^<>=]*?)\s*(?P<op>[<>]=?)\s*(?P<limit>[^<>=]*?)\s*")
_RATIO = re.compile(rf"({_NUMBER})\s*[xX×]")  # noqa: RUF001 - people type that sign
_PERCENT = re.compile(rf"([+-])\s*({_NUMBER})\s*%")
_DIFFERENCE = re.compile(rf"baseline\s*([+-])\s*({_NUMBER})\s*([A-Za-z°]*)", re.IGNORECASE)
_ABSOLUTE = re.compile(rf"([+-]?{_NUMBER})\s*([A-Za-z°]*)")


@dataclass(frozen=True)
class Threshold:
    """One limit: a report whose ``measure`` of ``figure`` is ``op`` the ``limit`` breaks it."""

    figure: Figure
    op: Operator
    measure: Measure
    limit: float

    def __str__(self) -> str:
        if self.measure == "ratio":
            limit = f"{self.limit!r}x"
        elif self.measure == "difference":
            limit = f"baseline{'-' if self.limit < 0 else '+'}{abs(self.limit)!r}"
        else:
            limit = f"{self.limit!r}"
        return f"{self.figure.name.removeprefix('latency_ms.')}{self.op}{limit}"

    @property
    def needs_baseline(self) -> bool:
        """Whether it says nothing without one."""
        return self.measure != "figure"

    def is_beyond(self, value: float) -> bool:
        """Whether ``value`` is what the threshold fails on."""
        return _BEYOND[self.op](value, self.limit)


def parse_threshold(text: str) -> Threshold:
    """Read a threshold.

    Raises:
        UsageError: It is none, or its figure or unit is unknown.
    """
    parts = _THRESHOLD.fullmatch(text)
    if parts is None or not parts["figure"]:
        raise UsageError(f"{text!r} is no threshold", f"write FIGURE>LIMIT, {EXAMPLES}")
    figure = find(parts["figure"])
    measure, limit = _limit(parts["limit"], figure, text)
    return Threshold(figure, cast("Operator", parts["op"]), measure, limit)


def _limit(limit: str, figure: Figure, text: str) -> tuple[Measure, float]:
    if match := _RATIO.fullmatch(limit):
        return "ratio", float(match[1])
    if match := _PERCENT.fullmatch(limit):
        return "ratio", 1 + float(match[1] + match[2]) / 100
    if match := _DIFFERENCE.fullmatch(limit):
        _require_unit(match[3], figure, text)
        return "difference", float(match[1] + match[2])
    if match := _ABSOLUTE.fullmatch(limit):
        _require_unit(match[2], figure, text)
        return "figure", float(match[1])
    raise UsageError(f"{limit!r} in {text!r} is no limit", f"write FIGURE>LIMIT, {EXAMPLES}")


def _require_unit(unit: str, figure: Figure, text: str) -> None:
    if unit and unit.lower().lstrip("°") != figure.unit.lower().lstrip("°"):
        owns = f"is in {figure.unit}" if figure.unit else "has no unit"
        raise UsageError(f"{figure.name} {owns}: {text!r}", f"leave {unit!r} out, and convert")


def require_baseline(thresholds: Sequence[Threshold], given: bool) -> None:
    """Refuse thresholds that need a baseline where none is given.

    Raises:
        UsageError: One of them does.
    """
    for threshold in thresholds:
        if threshold.needs_baseline and not given:
            raise UsageError(
                f"{threshold} is held to a baseline, and none is given",
                "add --against baseline.json, made by musgd bench --json > baseline.json",
            )


# --------------------------------------------------------------------------------------- judging


def broken(
    thresholds: Sequence[Threshold],
    reports: Sequence[BenchReport],
    comparisons: Sequence[Comparison] = (),
) -> tuple[Broken, ...]:
    """Hold every report to every threshold.

    Args:
        thresholds: Those that need a baseline need ``comparisons``.
        reports: All of one bench.
        comparisons: One a report, in their order, or none.

    Returns:
        What is beyond its limit or cannot be held to it. Only what is ``certain`` fails a bench;
        the rest is within the noise.
    """
    pairs: Iterable[tuple[BenchReport, Comparison | None]] = (
        zip(reports, comparisons, strict=True)
        if comparisons
        else ((report, None) for report in reports)
    )
    found = [
        _hold(threshold, report, comparison)
        for report, comparison in pairs
        for threshold in thresholds
    ]
    return tuple(one for one in found if one is not None)


def unmeasured(artifact: str, threads: int, why: str) -> Broken:
    """Return what breaks a gate whose artifact was not measured: it must not go green unseen.

    Args:
        artifact: Its path.
        threads: 0 where it is not known at which.
        why: In words.
    """
    return Broken(
        threshold=None,
        artifact=artifact,
        threads=threads,
        value=None,
        certain=True,
        what=f"{_name(artifact, threads)}: was not measured: {why}",
    )


def _name(artifact: str, threads: int) -> str:
    name = PurePath(artifact).name
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}" if threads else name


@dataclass(frozen=True)
class _Held:
    """What is held to a limit, with its 95 % interval where the repeats tell one."""

    value: float
    interval: Interval | None


def _hold(
    threshold: Threshold, report: BenchReport, comparison: Comparison | None
) -> Broken | None:
    held = _held(threshold, report, comparison)
    if isinstance(held, str):
        return _broken(threshold, report, None, certain=True, told=held)
    if not threshold.is_beyond(held.value):
        return None
    told = _tell(threshold, held)
    if held.interval is None or all(map(threshold.is_beyond, held.interval)):
        return _broken(threshold, report, held, certain=True, told=told)
    return _broken(
        threshold,
        report,
        held,
        certain=False,
        told=f"{told}: beyond the limit, but within the noise; more --repeats narrow it",
    )


def _broken(
    threshold: Threshold, report: BenchReport, held: _Held | None, *, certain: bool, told: str
) -> Broken:
    return Broken(
        threshold=str(threshold),
        artifact=report.artifact,
        threads=report.threads,
        value=held.value if held else None,
        interval=held.interval if held else None,
        certain=certain,
        what=f"{_name(report.artifact, report.threads)}: {threshold}: {told}",
    )


def _held(threshold: Threshold, report: BenchReport, comparison: Comparison | None) -> _Held | str:
    """Return what is held to the limit, or why nothing can be."""
    figure = threshold.figure
    value = figure.of(report)
    if value is None:
        return "cannot be measured here"
    if figure.kind == "time" and report.host.emulated:
        return "cannot be measured here: an emulator's speed is not the board's"
    if figure.kind == "power" and report.power_kind == "estimated":
        return "an estimate of power passes no threshold"
    if not threshold.needs_baseline:
        return _Held(value, prediction_interval(value, figure.by_repeat(report)))
    return _held_to_baseline(threshold, comparison)


def _held_to_baseline(threshold: Threshold, comparison: Comparison | None) -> _Held | str:
    figure = threshold.figure
    if comparison is None:
        return "there is no baseline"
    change = next((c for c in comparison.changes if c.figure == figure.name), None)
    if change is None:
        reasons = comparison.not_compared
        why = reasons.get("everything") or reasons.get(figure.kind)
        return f"cannot be compared: {why or 'the baseline did not measure it'}"
    if threshold.measure == "difference":
        interval = change.interval
        if interval is not None:
            interval = (interval[0] - 1) * change.baseline, (interval[1] - 1) * change.baseline
        return _Held(change.here - change.baseline, interval)
    if change.ratio is None:
        return f"cannot be compared: nothing is a ratio of the baseline's {change.baseline:g}"
    return _Held(change.ratio, change.interval)


def _tell(threshold: Threshold, held: _Held) -> str:
    def number(value: float) -> str:
        if threshold.measure == "ratio":
            return f"{value:.3f}x"
        sign = "+" if threshold.measure == "difference" else ""
        return f"{value:{sign}.4g}"

    text = number(held.value)
    if threshold.measure != "ratio" and threshold.figure.unit:
        text += f" {threshold.figure.unit}"
    if held.interval is not None:
        text += f" (95 %: {number(held.interval[0])} to {number(held.interval[1])})"
    return text
