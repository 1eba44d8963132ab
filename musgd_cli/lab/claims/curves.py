"""Training losses, step by step, and how many steps it takes to reach one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from musgd_cli.runs import RunFolder

WINDOW_SHARE = 4
"""A loss is a mean over an epoch's steps, or over this part of a training if that is fewer."""


@dataclass(frozen=True)
class Curve:
    """The losses of a training, one a step."""

    losses: tuple[float, ...]
    """NaN where a step's was not finite."""
    window: int
    """Steps over which a loss is averaged."""

    @classmethod
    def of(cls, run: RunFolder) -> Curve:
        """Read what a run logged."""
        steps = run.steps()
        losses = tuple(math.nan if step.loss is None else step.loss for step in steps)
        an_epoch = sum(step.epoch == 1 for step in steps)
        return cls(losses, max(1, min(an_epoch, len(steps) // WINDOW_SHARE)))

    @property
    def first(self) -> float:
        """The loss of the untrained network, before any step."""
        return self.losses[0]

    @property
    def last(self) -> float:
        """The mean loss of the last window."""
        return self._mean(len(self.losses))

    def steps_to(self, loss: float) -> int | None:
        """Return the steps after which the mean of a window is ``loss`` or less, if ever."""
        ends = range(self.window, len(self.losses) + 1)
        return next((end for end in ends if self._mean(end) <= loss), None)

    def _mean(self, end: int) -> float:
        return sum(self.losses[end - self.window : end]) / self.window


@dataclass(frozen=True)
class StepRatios:
    """How many steps one optimizer needs, as shares of another's, one a seed."""

    ratios: tuple[float, ...]
    never: int
    """Seeds in which it did not get there; its ratio is then that of all its steps."""

    @property
    def in_words(self) -> str:
        """What must be said beside the ratios."""
        if not self.never:
            return ""
        return f"; never in {self.never} of {len(self.ratios)} seeds, counted as all of its steps"


def step_ratios(ours: Sequence[Curve], baseline: Sequence[Curve]) -> StepRatios:
    """Compare steps to the loss that the baseline ends with, seed by seed.

    Args:
        ours: One curve a seed.
        baseline: Of the same seeds in the same order, and so of the same batches.
    """
    ratios, never = [], 0
    for mine, theirs in zip(ours, baseline, strict=True):
        target = theirs.last
        needed = theirs.steps_to(target)
        if needed is None:  # it ended in NaN
            continue
        steps = mine.steps_to(target)
        never += steps is None
        ratios.append((len(mine.losses) if steps is None else steps) / needed)
    return StepRatios(tuple(ratios), never)
