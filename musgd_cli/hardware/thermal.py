"""How hot the processor is, and whether it is held back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from musgd_cli.hardware.nvml import first_gpu
from musgd_cli.hardware.tree import Tree

Device = Literal["cpu", "gpu"]

# Zones of the processor's die: cpu-thermal (Pi, Orin), CPU-therm, GPU-therm (Nano), soc0-thermal,
# tj-thermal (Orin), bigcore0-thermal (RK3588), x86_pkg_temp. Others are of boards, radios and
# disks; the Nano's PMIC-Die reads a constant 100 degrees, ACPI's often a constant too.
_DIE = re.compile(r"cpu|gpu|soc|tj|bigcore|littlecore|x86_pkg_temp", re.IGNORECASE)
_X86_SENSORS = ("coretemp", "k10temp", "zenpower")
_PLAUSIBLE_C = (-40.0, 150.0)

_PI_NOW = 0xF
"""Bits 0-3 of ``get_throttled``: under-voltage, clock capped, throttled, soft temperature limit.
Bits 16-19 say the same since boot, which may be before the work in question."""

_NVML_HELD_BACK = 0x4 | 0x8 | 0x20 | 0x40 | 0x80
"""Power cap, hardware slowdown, software and hardware thermal slowdown, power brake
(nvmlClocksEventReasons). Idle (0x1) is not throttling."""


def temperature_c(root: Path = Path("/"), *, device: Device = "cpu") -> float | None:
    """Return the processor's temperature, that of its hottest sensor; ``None`` without one.

    Args:
        root: ``/``, or a recorded tree.
        device: ``gpu`` asks this machine's NVIDIA driver, where there is one.
    """
    tree = Tree(root)
    if device == "gpu" and tree.live and (gpu := first_gpu()):
        return gpu.temperature_c
    low, high = _PLAUSIBLE_C
    return max((degrees for degrees in _die_c(tree) if low < degrees < high), default=None)


def _die_c(tree: Tree) -> Iterator[float]:
    for zone in tree.children("sys/class/thermal", "thermal_zone*"):
        if _DIE.match(tree.text(f"{zone}/type") or ""):
            # A zone of a part that is switched off answers with an error.
            millidegrees = tree.integer(f"{zone}/temp")
            if millidegrees is not None:
                yield millidegrees / 1000
    for sensor in tree.children("sys/class/hwmon", "hwmon*"):
        if tree.text(f"{sensor}/name") in _X86_SENSORS:
            millidegrees = tree.integer(f"{sensor}/temp1_input")
            if millidegrees is not None:
                yield millidegrees / 1000


def throttled(root: Path = Path("/"), *, device: Device = "cpu") -> bool | None:
    """Tell whether clocks are held back right now; ``None`` where nothing says so.

    Ask throughout a run, not only at its end: the state comes and goes. x86 CPUs only count
    events since boot, which says nothing of now.

    Args:
        root: ``/``, or a recorded tree.
        device: ``gpu`` asks this machine's NVIDIA driver, where there is one.
    """
    tree = Tree(root)
    if device == "gpu" and tree.live and (gpu := first_gpu()):
        reasons = gpu.clock_event_reasons
        return None if reasons is None else bool(reasons & _NVML_HELD_BACK)
    for soc in tree.children("sys/devices/platform", "soc*"):
        for firmware in tree.children(soc, "*:firmware"):
            # Hexadecimal, without a prefix.
            flags = tree.integer(f"{firmware}/get_throttled", base=16)
            if flags is not None:
                return bool(flags & _PI_NOW)
    for sensor in tree.children("sys/class/hwmon", "hwmon*"):
        # Mainline kernels tell of under-voltage alone: no alarm does not mean full clocks.
        alarm = tree.integer(f"{sensor}/in0_lcrit_alarm")
        if tree.text(f"{sensor}/name") == "rpi_volt" and alarm:
            return True
    return None
