"""The power chip of a Raspberry Pi 5, which measures the rails it feeds.

It measures neither what it draws itself nor what hangs on the 5 V input besides: USB, fan, HAT. So
the figure is less than the board's, by what nothing on the board can tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from musgd_cli.hardware.power.meter import Clock, SamplingMeter
from musgd_cli.hardware.tree import Tree

SOURCE = "pmic:rails"

COMMAND = ("vcgencmd", "pmic_read_adc")
DEVICE = "dev/vcio"
"""What vcgencmd talks to the firmware through; the group video may."""
GROUP_MEND = 'sudo usermod -aG video "$USER", then log in again'

_HZ = 2.0
"""Each sample starts a process, which takes the work that is measured some of its CPU."""

_ADC = re.compile(r"(\w+)_([AV]) (?:current|volt)\(\d+\)=([\d.]+)[AV]\b")


def has_pmic(tree: Tree) -> bool:
    """Tell whether this is a Pi 5, a Pi 500 or a Compute Module 5."""
    return "brcm,bcm2712" in tree.device_tree("compatible")


def pmic_meters(tree: Tree, clock: Clock) -> Iterator[SamplingMeter]:
    """Yield the meter of a Pi 5's rails, where vcgencmd answers."""
    if not has_pmic(tree):
        return
    rails = _rails_w(tree.answer(*COMMAND) or "")
    if not rails:
        return

    def read_w() -> float:
        now = _rails_w(tree.answer(*COMMAND) or "")
        if now.keys() != rails.keys():
            raise OSError("vcgencmd no longer tells of every rail")
        return sum(now.values())

    yield SamplingMeter(SOURCE, "rails", "reported", read_w, hz=_HZ, clock=clock)


def _rails_w(answer: str) -> dict[str, float]:
    """Return the watts of each rail that has both volts and amperes.

    EXT5V, the input, and BATT, the clock's cell, have volts alone.
    """
    adc = {(rail, unit): float(value) for rail, unit, value in _ADC.findall(answer)}
    return {
        rail: amperes * adc[rail, "V"]
        for (rail, unit), amperes in adc.items()
        if unit == "A" and (rail, "V") in adc
    }
