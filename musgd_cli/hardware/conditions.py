"""The state a machine is in while it works: heat, clocks, power mode, and how busy it is."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from musgd_cli.hardware.nvml import first_gpu
from musgd_cli.hardware.thermal import Device, temperature_c, throttling
from musgd_cli.hardware.tree import Tree

_CPUS = "sys/devices/system/cpu"

_TICKS = r"cpu +(\d+) (\d+) (\d+) \d+ \d+ (\d+) (\d+) (\d+)"
"""user, nice, system, not idle and iowait, irq, softirq, steal. Guests' time is within user's
(proc(5))."""


@dataclass(frozen=True)
class Conditions:
    """What a machine's sensors and system said at one moment; ``None`` where they do not tell."""

    temperature_c: float | None
    """Of the processor's hottest sensor, or of the GPU."""
    cpu_mhz: float | None
    """Mean over the CPU's online cores. Virtual machines do not tell."""
    cpu_mhz_max: float | None
    """Of the core that runs fastest: what a few busy threads run at, while others rest or are of a
    slower cluster."""
    governor: str | None
    """What chooses the CPU's clock, e.g. ``ondemand``; joined by ``+`` where cores differ."""
    power_mode: str | None
    """nvpmodel's name of a Jetson's mode, e.g. ``MAXN``."""
    throttled: bool | None
    """Clocks are held back right now, of the CPU or of the GPU."""
    throttle_reasons: tuple[str, ...] | None
    """By what, in words; under-voltage also where clocks are not held back by it."""
    busy_s: float | None
    """CPU seconds that all of the machine has used since it started: a difference of two tells
    how busy it was."""
    gpu_mhz: float | None = None
    """Of the GPU's cores, where they are what computes."""


def look(root: Path = Path("/"), *, device: Device = "cpu") -> Conditions:
    """Read the conditions, from a handful of small files.

    Args:
        root: ``/``, or a recorded tree.
        device: Whose temperature and throttling; all else is the CPU's or the whole machine's, but
            for the clock of a GPU.
    """
    tree = Tree(root)
    gpu = first_gpu() if device == "gpu" and tree.live else None
    clocks = clocks_khz(tree, "scaling_cur_freq")
    told = throttling(root, device=device)
    governors = (tree.text(f"{core}/scaling_governor") for core in _scaled_cores(tree))
    return Conditions(
        temperature_c=temperature_c(root, device=device),
        cpu_mhz=sum(clocks) / len(clocks) / 1000 if clocks else None,
        cpu_mhz_max=max(clocks) / 1000 if clocks else None,
        governor="+".join(dict.fromkeys(filter(None, governors))) or None,
        power_mode=_power_mode(tree),
        throttled=told.held_back if told else None,
        throttle_reasons=told.reasons if told else None,
        busy_s=busy_s(tree),
        gpu_mhz=gpu.clock_mhz if gpu else None,
    )


def clocks_khz(tree: Tree, file: str) -> list[int]:
    """Return a clock of each online core in kHz, e.g. its ``scaling_cur_freq``."""
    clocks = (tree.integer(f"{core}/{file}") for core in _scaled_cores(tree))
    return [clock for clock in clocks if clock is not None]


def _scaled_cores(tree: Tree) -> list[str]:
    """Return the cpufreq folders of the cores that are online: the others have none."""
    return [f"{core}/cpufreq" for core in tree.children(_CPUS, "cpu[0-9]*")]


def _power_mode(tree: Tree) -> str | None:
    """Return nvpmodel's mode by the files behind ``nvpmodel -q``, which takes a process to run.

    The daemon keeps the number in ``status``, as ``pmode:0000``; the configuration names it.
    """
    status = tree.text("var/lib/nvpmodel/status") or ""
    number = re.search(r"\bpmode:(\d+)", status)
    if number is None:
        return None
    named = rf"^<\s*POWER_MODEL\s+ID={int(number[1])}\s+NAME=([^\s>]+)"
    name = re.search(named, tree.text("etc/nvpmodel.conf") or "", re.MULTILINE)
    return name[1] if name else f"mode {int(number[1])}"


def busy_s(tree: Tree) -> float | None:
    """Return the CPU seconds that all of the machine has used since boot."""
    ticks = re.match(_TICKS, tree.text("proc/stat") or "")
    return sum(map(int, ticks.groups())) / os.sysconf("SC_CLK_TCK") if ticks else None
