"""How hot the processor is, and whether it is held back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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

_UNDER_VOLTAGE = "under-voltage"

_PI_REASONS = {
    0x1: _UNDER_VOLTAGE,
    0x2: "clock capped",
    0x4: "throttled",
    0x8: "soft temperature limit",
}
"""Bits of ``get_throttled`` that tell of now. Bits 16-19 say the same since boot, which may be
before the work in question."""

_NVML_REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Bits of ``nvmlClocksEventReasons`` by which clocks are held back. Idle (0x1) is not throttling,
nor are clocks that someone chose."""


@dataclass(frozen=True)
class Throttling:
    """What is told of the clocks right now."""

    reasons: tuple[str, ...]
    """Why they are held back, or soon may be, in words."""
    held_back: bool | None
    """``None`` where under-voltage alone is told of, as by mainline kernels on a Raspberry Pi."""


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
    """Tell whether clocks are held back right now, as :func:`throttling` does."""
    told = throttling(root, device=device)
    return told.held_back if told else None


def throttle_reasons(root: Path = Path("/"), *, device: Device = "cpu") -> tuple[str, ...] | None:
    """Name what holds clocks back right now, and under-voltage, as :func:`throttling` does."""
    told = throttling(root, device=device)
    return told.reasons if told else None


def throttling(root: Path = Path("/"), *, device: Device = "cpu") -> Throttling | None:
    """Tell why clocks are held back right now; ``None`` where nothing says so.

    Ask throughout a run, not only at its end: the state comes and goes. x86 CPUs only count
    events since boot, which says nothing of now.

    A Raspberry Pi's firmware takes the ARM cores' turbo away when the supply sags below 4.63 V,
    and then says ``throttled`` besides ``under-voltage`` (github.com/raspberrypi/firmware, issue
    615); with ``avoid_warnings=2`` in config.txt it leaves them their clocks. So under-voltage
    alone is told, but is not taken for throttling.

    Args:
        root: ``/``, or a recorded tree.
        device: ``gpu`` asks this machine's NVIDIA driver, where there is one.
    """
    tree = Tree(root)
    if device == "gpu" and tree.live and (gpu := first_gpu()):
        events = gpu.clock_event_reasons
        return None if events is None else _by_bits(events, _NVML_REASONS)
    for soc in tree.children("sys/devices/platform", "soc*"):
        for firmware in tree.children(soc, "*:firmware"):
            # Hexadecimal, without a prefix.
            flags = tree.integer(f"{firmware}/get_throttled", base=16)
            if flags is not None:
                return _by_bits(flags, _PI_REASONS)
    for sensor in tree.children("sys/class/hwmon", "hwmon*"):
        alarm = tree.integer(f"{sensor}/in0_lcrit_alarm")
        if tree.text(f"{sensor}/name") == "rpi_volt" and alarm:
            return Throttling((_UNDER_VOLTAGE,), held_back=None)
    return None


def _by_bits(flags: int, meanings: Mapping[int, str]) -> Throttling:
    reasons = tuple(meaning for bit, meaning in meanings.items() if flags & bit)
    return Throttling(reasons, held_back=any(reason != _UNDER_VOLTAGE for reason in reasons))
