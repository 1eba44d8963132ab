"""Which trials to measure, and which to choose, so that the most accurate that is fast enough wins.

Measuring takes the better part of a minute a trial, so only those are measured on which the answer
hangs: the one that is predicted to win, and whatever would be preferred to it and comes near.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

NEAR = 0.25
"""A prediction that falls short of the goal by no more than this share may be wrong about it."""


@dataclass(eq=False)
class Trial:
    """One artifact with one thread count.

    Args:
        family: What it shares with the same model at other image sizes.
        imgsz: Image size, pixels a side.
        threads: Of the engine.
        accuracy: Compares as the accuracy does.
        predicted_fps: Whole frames a second.
        meets: Whether it was measured to meet the whole goal; ``None`` before that.
    """

    family: Hashable
    imgsz: int
    threads: int
    accuracy: tuple[float, ...]
    predicted_fps: float
    meets: bool | None = None

    def is_hopeful(self, fps: float) -> bool:
        """Whether it meets the goal, as far as is known."""
        return self.predicted_fps >= fps if self.meets is None else self.meets

    def is_open(self, fps: float) -> bool:
        """Whether it might meet the goal, and only measuring can tell."""
        return self.meets is None and self.predicted_fps >= fps * (1 - NEAR)


T = TypeVar("T", bound=Trial)


def by_preference(trials: Sequence[T]) -> list[T]:
    """Sort trials: the most accurate first, then the fewest threads, then the fastest."""
    return sorted(trials, key=lambda t: (t.accuracy, -t.threads, t.predicted_fps), reverse=True)


def best(trials: Sequence[T], fps: float) -> T | None:
    """Return the preferred trial that meets the goal as far as is known."""
    return next((trial for trial in by_preference(trials) if trial.is_hopeful(fps)), None)


def step_larger(trials: Sequence[T], trial: T) -> T | None:
    """Return the next larger size of a trial's family, at the thread count that is fastest."""
    larger = [t for t in trials if t.family == trial.family and t.imgsz > trial.imgsz]
    return min(larger, key=lambda t: (t.imgsz, -t.predicted_fps), default=None)


def to_measure(trials: Sequence[T], fps: float) -> list[T]:
    """Return the trials that must be measured next; none: the best is the answer.

    Where nothing is hopeful, these are the ones that come near, or else the fastest.
    """
    ordered = by_preference(trials)
    leader = best(trials, fps)
    if leader is None:
        wanted = [trial for trial in ordered if trial.is_open(fps)]
        if trials and not wanted and all(trial.meets is None for trial in trials):
            wanted = [max(trials, key=lambda t: t.predicted_fps)]
        return wanted
    preferred = ordered[: ordered.index(leader)]
    wanted = [trial for trial in (*preferred, leader) if trial.is_open(fps)]
    larger = step_larger(trials, leader)  # to show that the answer is no smaller than it need be
    if larger is not None and larger.meets is None and larger not in wanted:
        wanted.append(larger)
    return wanted
