"""Whether adaptive momentum does anything in a run, and what to set where it does not.

What counts is how far back a step reaches: a buffer of momentum b holds 1 / (1 - b) gradients.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from musgd_cli.records import OptimSettings, StepLog

LEAST_STEPS = 10
"""Fewer are no evidence; the steps of short epochs are judged together."""

SHORTENED = 0.01
"""A reach shortened by less on every step is that of the momentum at rest. Of 300 epochs on BCCD
with ``adapt_factor=0.1`` the least shortened had a step with .045."""

VARIED = 0.002
"""A reach whose extremes differ by less is constant. In those epochs they differed by .018 or more,
with ``"auto"`` by .007, though the gradient clip, behind which each tensor's norm is taken, was
active on all their steps: it holds the sum of the squares alone."""

NO_MOMENTUM = 0.1
"""With a smaller beta on every step, the update is the newest gradient to nine tenths or more."""

_AUTO_FACTOR = 0.1
"""What the mean squared norm times ``adapt_factor`` comes to under ``"auto"``."""


class AdaptationWatch:
    """Reads a run's steps and tells, once for each cause, when beta answers to no gradient.

    Steps of the warm-up are left out: there it is the momentum at rest that changes.

    Args:
        settings: The run's.
        earlier: The steps of the epochs that are finished. What they gave cause to tell was told
            when they were taken, and is not told again.
    """

    def __init__(self, settings: OptimSettings, earlier: Iterable[StepLog] = ()) -> None:
        self._settings = settings
        self._steps: list[StepLog] = []
        self._told: set[str] = set()
        epoch = 1
        for step in earlier:
            if step.epoch != epoch:
                self.end_epoch()
                epoch = step.epoch
            self.step(step)
        self.end_epoch()

    def step(self, log: StepLog) -> None:
        """Take in a step."""
        adapts = self._settings.adapt_factor != 0 and self._settings.momentum > 0
        if adapts and log.beta is not None and log.momentum == self._settings.momentum:
            self._steps.append(log)

    def end_epoch(self) -> str | None:
        """Judge the epoch, together with those before it that were too short.

        Returns:
            What is to be told: what is wrong, and what to set in another run.
        """
        if len(self._steps) < LEAST_STEPS:
            return None
        steps, self._steps = self._steps, []
        found = _ailment(self._settings, steps)
        if found is None or found in self._told:
            return None
        self._told.add(found)
        return _words(found, self._settings, steps)


def _betas(steps: Sequence[StepLog]) -> list[float]:
    return [step.beta for step in steps if step.beta is not None]


def _ailment(settings: OptimSettings, steps: Sequence[StepLog]) -> str | None:
    betas = _betas(steps)
    reaches = [1 / (1 - beta) for beta in betas]
    if max(betas) < NO_MOMENTUM:
        return "no momentum"
    # "auto" is never too small: what it leaves alone are gradients of far less than their mean.
    shortened = 1 - min(reaches) * (1 - settings.momentum)
    if settings.adapt_factor != "auto" and shortened < SHORTENED:
        return "at rest"
    return "constant" if max(reaches) / min(reaches) - 1 < VARIED else None


def _words(found: str, settings: OptimSettings, steps: Sequence[StepLog]) -> str:
    first, last = steps[0].epoch, steps[-1].epoch
    every = "every step of " + (f"epoch {last}" if first == last else f"epochs {first} to {last}")
    factor = settings.adapt_factor
    given = f"adapt_factor={factor if isinstance(factor, str) else f'{factor:g}'}"
    beta = f"{statistics.fmean(_betas(steps)):.3g}"
    off = "--set optim.adapt_factor=0"
    if found == "no momentum":
        ours = off if settings.name == "musgd" else "--optimizer musgd"
        return (
            f"{given} is too large for these gradients: on {every} beta was at its floor, {beta} "
            f"on average{_norms(settings, steps)}, so there is no momentum. In the next run "
            f"{_fitting(settings, steps)}, and {ours} keeps momentum whole"
        )
    if found == "at rest":
        return (
            f"{given} is too small for these gradients: on {every} beta was at its ceiling, "
            f"{settings.momentum:g}{_norms(settings, steps)}, so nothing adapts. In the next run "
            f"{_fitting(settings, steps)}, and {off} trains alike"
        )
    alike = f"{off} --set optim.momentum={beta} trains alike"
    why = ""
    if settings.norm_scope == "tensor" and all(step.clipped for step in steps):
        why = ", for the gradient was clipped each time and norms are taken behind the clip"
        if settings.second_moment == "none":
            before = "--set optim.norm_scope=global --set optim.adapt_factor=auto"
            alike = f"{before} takes the norm before it, and {alike}"
    return f"{given} does nothing: on {every} beta was {beta}{why}. In the next run {alike}"


def _norms(settings: OptimSettings, steps: Sequence[StepLog]) -> str:
    if settings.norm_scope != "global":
        return ""
    clipped = ", clipped each time" if all(step.clipped for step in steps) else ""
    return f", at a gradient norm of {_median_norm(steps):.3g}{clipped}"


def _median_norm(steps: Sequence[StepLog]) -> float:
    return statistics.median(step.grad_norm for step in steps if step.grad_norm is not None)


def _fitting(settings: OptimSettings, steps: Sequence[StepLog]) -> str:
    """Say what adapts; a number only where the log has the norm that decides."""
    auto = "--set optim.adapt_factor=auto measures each gradient against the usual one"
    norm = _median_norm(steps)
    if settings.norm_scope != "global" or not norm:
        return auto
    return f"{auto}, --set optim.adapt_factor={_AUTO_FACTOR / norm**2:.2g} suits this norm"
