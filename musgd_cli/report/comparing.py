"""What is said of an optimizer comparison, on the terminal and on its page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from musgd_cli.report.wording import count

if TYPE_CHECKING:
    from musgd_cli.records import (
        ComparisonTarget,
        ContenderResult,
        OptimizerComparison,
        TargetOutcome,
    )

LEAST_SEEDS = 3
"""Fewer are no basis for a claim."""


def target_title(target: ComparisonTarget) -> str:
    """Return a target as it is written, e.g. ``val loss 2.3``."""
    return f"{target.figure} {target.value:.4g}"


def reached_text(outcome: TargetOutcome) -> str:
    """Say how many runs got to a target."""
    if not outcome.reached:
        return "never"
    return f"{outcome.reached} of {outcome.of}"


def target_lines(result: OptimizerComparison) -> Iterator[str]:
    """Say where the targets come from, which nobody gave."""
    whys = dict.fromkeys(target.why for target in result.targets if not target.given)
    for why in whys:
        titles = (target_title(target) for target in result.targets if target.why == why)
        yield f"{', '.join(titles)}: {why}, the median over its seeds"


def conditions(result: OptimizerComparison) -> Iterator[str]:
    """Say how it was measured."""
    yield from target_lines(result)
    settings = result.request.settings
    images = f" ({result.n_images} + {result.n_val_images} images)" if result.n_images else ""
    device = f", {result.device}" if result.device else ""
    threads = f", {count(result.threads, 'thread')}" if result.threads else ""
    yield (
        f"{settings['train.model']} on {result.data}{images}, {settings['train.imgsz']} px, "
        f"batch {settings['train.batch']}, {count(settings['train.epochs'], 'epoch')}, "
        f"{count(result.request.seeds, 'seed')}{device}{threads}"
    )


def cautions(result: OptimizerComparison) -> Iterator[str]:
    """Say what forbids to read more into the figures than they tell."""
    seeds = result.request.seeds
    if seeds < LEAST_SEEDS:
        yield f"{count(seeds, 'seed')}: no basis for a claim, which takes {LEAST_SEEDS} or more"
    if result.jobs > 1:
        yield f"times were measured with {result.jobs} jobs side by side"
    for contender in result.contenders:
        if contender.lr is None:
            yield f"{contender.optimizer} diverged at every learning rate of its sweep"
        elif lost := sum(run.diverged for run in contender.runs):
            yield f"{contender.optimizer} diverged with {count(lost, 'seed')} of {seeds}"


def role_text(contender: ContenderResult) -> str:
    """Say what a contender is there for."""
    if contender.role == "baseline":
        return "baseline"
    if contender.role == "control":
        return f"control of {contender.control_of}"
    return ""
