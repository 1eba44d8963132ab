"""How much is spent on the claims."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Scale:
    """How many trainings there are, and how long they are."""

    name: Literal["quick", "full"]
    seeds: int
    """Scored trainings an optimizer, seeds 0, 1, …"""
    epochs: int
    """Of a scored training."""
    sweep_epochs: int
    """Of the trainings that choose a learning rate."""
    momenta: tuple[float, ...]
    """Rows of the grid of C5, beside the optimizers' own momentum; its columns are the sweep's."""
    multiples: tuple[int, ...]
    """Of the tuned learning rate, rising: what C4 asks optimizers to survive."""
    tuning_epochs: int
    """Of the fine-tuning after pruning."""
    rounds: int
    """Of timed optimizer steps."""
    calib: int
    """Images that calibrate int8."""
    flags: dict[str, Any] = field(default_factory=dict)
    """Settings of its trainings on the built-in data set, by ``section.key``."""


QUICK = Scale(
    name="quick",
    seeds=2,
    epochs=4,
    sweep_epochs=3,
    momenta=(0.6,),
    multiples=(100,),
    tuning_epochs=1,
    rounds=5,
    calib=64,
    # 32 steps an epoch, 8.5 s of one core of an x86 server. Smaller images hide the objects.
    flags={"train.imgsz": 96, "train.batch": 16, "optim.warmup_epochs": 1.0},
)
"""A look, from which only large effects can be told. One run, on two cores of a slow EPYC, took
1830 CPU seconds and 17.4 minutes to the end of C7."""

FULL = Scale(
    name="full",
    seeds=3,
    epochs=12,
    sweep_epochs=12,
    momenta=(0.6, 0.95),
    multiples=(3, 10, 30, 100, 300),
    tuning_epochs=4,
    rounds=9,
    calib=300,
)

SCALES = {scale.name: scale for scale in (QUICK, FULL)}


def changed(scale: Scale, *, epochs: int | None = None, seeds: int | None = None) -> Scale:
    """Return a scale with other epochs, of scored trainings and sweeps alike, or other seeds."""
    if epochs is not None:
        scale = replace(scale, epochs=epochs, sweep_epochs=epochs)
    return scale if seeds is None else replace(scale, seeds=seeds)
