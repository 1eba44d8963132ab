"""From finished trials to figures: curves, the steps to a target, medians over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from musgd_cli.errors import MusgdError
from musgd_cli.records import (
    ComparisonTarget,
    Crossing,
    CurvePoint,
    ScoredRun,
    Spread,
    TargetOutcome,
)
from musgd_cli.runs import RunFolder

FIGURES: Mapping[Literal["train loss", "val loss", "mAP50"], Callable[[CurvePoint], float | None]]
FIGURES = {
    "train loss": lambda point: point.train_loss,
    "val loss": lambda point: point.val_loss,
    "mAP50": lambda point: point.map50,
}
"""What a target can be of."""

RISING = frozenset({"mAP50"})
"""Figures that are better when they are higher."""

PARTS = {"half": 0.5, "three quarters": 0.75}
"""Shares of the baseline's steps at which it sets the targets that nobody gave."""


@dataclass(frozen=True)
class Outcome:
    """How a trial went. The curve of one that diverged ends where it did."""

    run: RunFolder
    diverged: bool

    def curve(self) -> tuple[CurvePoint, ...]:
        """Read its curve.

        Raises:
            MusgdError: The logs are not whole.
        """
        points = read_curve(self.run)
        if not self.diverged and len(points) != self.run.result().epochs:
            raise MusgdError(
                f"{self.run.path} has lost part of its logs",
                f"rm -r {self.run.typed}, then the same command trains it anew",
            )
        return points


def read_curve(run: RunFolder) -> tuple[CurvePoint, ...]:
    """Return the ends of a run's epochs."""
    ends: dict[int, int] = {}
    for step in run.steps():
        ends[step.epoch] = step.step
    epochs = run.epochs()
    points, seconds = [], 0.0
    for epoch in epochs:
        if epoch.epoch not in ends:
            break
        seconds += epoch.seconds
        points.append(
            CurvePoint(
                step=ends[epoch.epoch],
                seconds=seconds,
                train_loss=epoch.train_loss,
                val_loss=epoch.val_loss,
                map50=epoch.map50,
                map50_95=epoch.map50_95,
            )
        )
    return tuple(points)


def crossing(curve: Sequence[CurvePoint], target: ComparisonTarget) -> Crossing | None:
    """Return where a curve first gets to a target, linear between the ends of epochs.

    One that is there at the end of its first epoch, or of one after a figure that is missing, has
    got there at that end.
    """
    sign = 1.0 if target.figure in RISING else -1.0
    before: tuple[CurvePoint, float] | None = None
    for point in curve:
        figure = FIGURES[target.figure](point)
        gap = None if figure is None else sign * (target.value - figure)
        if gap is not None and gap <= 0:
            if before is None:
                return Crossing(steps=point.step, seconds=point.seconds)
            was, was_gap = before
            part = was_gap / (was_gap - gap)
            return Crossing(
                steps=was.step + part * (point.step - was.step),
                seconds=was.seconds + part * (point.seconds - was.seconds),
            )
        before = None if gap is None else (point, gap)
    return None


def value_at(
    curve: Sequence[CurvePoint], step: float, figure: Callable[[CurvePoint], float | None]
) -> float | None:
    """Return a curve's figure at a step, linear between the ends of epochs."""
    if not curve:
        return None
    before = curve[0]
    for point in curve:
        if point.step >= step:
            low, high = figure(before), figure(point)
            if low is None or high is None or point.step == before.step:
                return high
            part = max(0.0, (step - before.step) / (point.step - before.step))
            return low + part * (high - low)
        before = point
    return None


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return median and range, or nothing where a value is missing or there is none."""
    known = list(values)
    present = [value for value in known if value is not None]
    if not present or len(present) < len(known):
        return None
    return Spread(
        median=statistics.median(present), low=min(present), high=max(present), n=len(present)
    )


def default_targets(curves: Sequence[Sequence[CurvePoint]]) -> tuple[ComparisonTarget, ...]:
    """Return what the baseline reached after parts of its steps, the median over its seeds.

    Args:
        curves: One a seed.
    """
    targets = []
    for figure, read in FIGURES.items():
        for words, part in PARTS.items():
            values = spread(value_at(c, part * c[-1].step, read) if c else None for c in curves)
            # Four digits, so that a target is what is written; mAP50 of 0 is none.
            if values is not None and (value := float(f"{values.median:.4g}")) > 0:
                targets.append(
                    ComparisonTarget(
                        figure=figure,
                        value=value,
                        given=False,
                        why=f"what the baseline had reached after {words} of its steps",
                    )
                )
    return tuple(targets)


def outcomes(runs: Sequence[ScoredRun], n_targets: int) -> tuple[TargetOutcome, ...]:
    """Return what runs took to each target."""
    found = []
    for at in range(n_targets):
        crossings = [run.crossings[at] for run in runs]
        found.append(
            TargetOutcome(
                reached=sum(each is not None for each in crossings),
                of=len(runs),
                steps=spread(each.steps if each else None for each in crossings),
                seconds=spread(each.seconds if each else None for each in crossings),
                steps_ratio=spread(run.steps_ratios[at] for run in runs),
            )
        )
    return tuple(found)
