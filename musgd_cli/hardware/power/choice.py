"""Which of this machine's meters measures a piece of work, or why none does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from musgd_cli.errors import UnsupportedError, UsageError
from musgd_cli.hardware.nvml import first_gpu
from musgd_cli.hardware.power import pmic
from musgd_cli.hardware.power.estimate import estimates
from musgd_cli.hardware.power.meter import (
    REAL_TIME,
    Clock,
    PowerMeter,
    SamplingMeter,
    Scope,
)
from musgd_cli.hardware.power.sensors import find_sensors, gpu_meters
from musgd_cli.hardware.power.trace import CsvMeter
from musgd_cli.hardware.thermal import Device
from musgd_cli.hardware.tree import Tree

_WIDEST_FIRST: tuple[Scope, ...] = ("board", "module", "rails", "package", "gpu", "sensor")


def find_meters(root: Path = Path("/"), *, clock: Clock = REAL_TIME) -> list[PowerMeter]:
    """Return the meters that can be read, best first: those of the widest scope, then the chips'.

    A battery feeds the whole machine, but comes last: it is too slow for most windows.

    Args:
        root: ``/``, or a recorded tree, whose files are then read as if they were live.
        clock: Times the readings.
    """
    tree = Tree(root)
    meters: list[PowerMeter] = [
        found.meter for found in find_sensors(tree, clock) if found.meter.answers()
    ]
    meters += pmic.pmic_meters(tree, clock)
    if tree.live and (gpu := first_gpu()):
        meters += gpu_meters(gpu, clock)
    return sorted(meters, key=_rank)


def _rank(meter: PowerMeter) -> tuple[bool, int]:
    slow = isinstance(meter, SamplingMeter) and meter.holds
    return slow, _WIDEST_FIRST.index(meter.scope)


def best_meter(root: Path = Path("/"), *, device: Device = "cpu") -> PowerMeter | None:
    """Return the meter that says most of work on ``device``; ``None`` when none can.

    The board's input before the module's before the chip's own. The GPU's meter says nothing of
    work on the CPU, nor the CPU's of work on the GPU. A sensor that sits who knows where is taken
    for want of any other, if it is the only one.
    """
    own: Scope = "gpu" if device == "gpu" else "package"
    meters = find_meters(root)
    sensors = [meter for meter in meters if meter.scope == "sensor"]
    telling = [meter for meter in meters if meter.scope in {"board", "module", "rails", own}]
    return next(iter(telling), sensors[0] if len(sensors) == 1 else None)


def choose_meter(
    spec: str | None,
    *,
    root: Path = Path("/"),
    device: Device = "cpu",
    estimate: bool = False,
) -> PowerMeter | None:
    """Return the meter that ``spec`` names.

    Args:
        spec: ``None``: the best one; ``none``: no meter; a meter's source, or a unique beginning of
            it; a path that ends in ``.csv``: what an external meter writes.
        root: ``/``, or a recorded tree.
        device: What works while it measures.
        estimate: Where there is no meter, a model of this board will do.

    Raises:
        UsageError: No meter, or several, go by that name; the CSV file is none.
        UnsupportedError: The meter is there, but this user may not read it.
    """
    if spec == "none":
        return None
    if spec and spec.lower().endswith(".csv"):
        return CsvMeter(Path(spec))
    # A model knows of no GPU.
    models = list(estimates(Tree(root), REAL_TIME)) if estimate and device == "cpu" else []
    if spec is None:
        return best_meter(root, device=device) or next(iter(models), None)
    meters = [*find_meters(root), *models]
    named = [meter for meter in meters if spec and meter.source.startswith(spec)]
    exact = [meter for meter in named if meter.source == spec]
    if len(exact or named) == 1:
        return (exact or named)[0]
    for refusal in refused(root):
        if spec and not named and refusal.source.startswith(spec):
            raise UnsupportedError(refusal.what, refusal.mend)
    sources = "".join(f"{meter.source}, " for meter in named or meters)
    raise UsageError(
        f"{spec!r} names {'more than one meter' if named else 'no meter of this machine'}",
        f"pass {sources}none, or a file that ends in .csv",
    )


@dataclass(frozen=True)
class Refusal:
    """A meter that is there, but that this user may not read.

    Args:
        source: As it would be called.
        path: What may not be read.
        mend: The command that lets this user.
    """

    source: str
    path: Path
    mend: str

    @property
    def what(self) -> str:
        """In words."""
        return f"{self.source} may not be read by this user: {self.path}"


def refused(root: Path = Path("/")) -> tuple[Refusal, ...]:
    """Return the meters that are there but may not be read."""
    return tuple(_refusals(Tree(root)))


def _refusals(tree: Tree) -> Iterator[Refusal]:
    for found in find_sensors(tree, REAL_TIME):
        if path := found.denied:
            yield Refusal(found.meter.source, path, found.mend)
    device = tree.locate(pmic.DEVICE)
    if (
        pmic.has_pmic(tree)
        and device.exists()
        and not os.access(device, os.R_OK, effective_ids=True)
    ):
        yield Refusal(pmic.SOURCE, device, pmic.GROUP_MEND)


def why_none(root: Path = Path("/"), device: Device = "cpu") -> str:
    """Say why :func:`best_meter` finds none."""
    tree = Tree(root)
    sensors = [meter.source for meter in find_meters(root) if meter.scope == "sensor"]
    if device == "gpu" and tree.live and first_gpu() is not None:
        return "NVIDIA's driver does not tell this card's power"
    if device == "cpu" and (refusals := refused(root)):
        return refusals[0].what
    if sensors:
        return f"what {' and '.join(sensors)} measure cannot be told: name one with --meter"
    if pmic.has_pmic(tree):
        return "vcgencmd, which asks the board's power chip, does not answer"
    return "no meter on this board"
