"""The figures of a report that tables show: what each is called, and how it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from musgd_cli.report.lineup import Entry, Lineup
from musgd_cli.report.wording import share, three_digits


@dataclass(frozen=True)
class Figure:
    """One column of figures."""

    heading: str
    unit: str
    value: Callable[[Entry], float | None]
    text: Callable[[float], str]
    lead: bool = False
    """Most readers come for it."""
    of_machine: bool = False
    """An emulated machine has none."""

    @property
    def name(self) -> str:
        """Heading and unit in one."""
        return f"{self.heading} {self.unit}"


def _figure(
    heading: str,
    unit: str,
    path: str,
    text: Callable[[float], str],
    *,
    lead: bool = False,
    of_machine: bool = False,
) -> Figure:
    return Figure(heading, unit, attrgetter(f"report.{path}"), text, lead, of_machine)


def _timed(
    heading: str, unit: str, path: str, text: Callable[[float], str], *, lead: bool = False
) -> Figure:
    return _figure(heading, unit, path, text, lead=lead, of_machine=True)


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _hundredths(value: float) -> str:
    return f"{value:.2f}"


def _change(value: float) -> str:
    text = f"{value:+.3f}"
    return text if float(text) else text[1:]


P50 = _timed("p50", "ms", "latency_ms.p50", three_digits, lead=True)
SPEED = (
    P50,
    _timed("p90", "ms", "latency_ms.p90", three_digits),
    _timed("p99", "ms", "latency_ms.p99", three_digits),
    _timed("max", "ms", "latency_ms.max", three_digits),
    _timed("FPS", "model", "fps", three_digits),
    _timed("FPS", "frame", "fps_end_to_end", three_digits, lead=True),
)
BESIDE = (
    _timed("pre", "ms", "pre_ms", _hundredths),
    _timed("post", "ms", "post_ms", _hundredths),
    _timed("load", "ms", "load_ms", _whole),
)
"""What a frame, or the first one, takes beside its inference."""

MEAN_AP = (
    _figure("mAP", "50-95", "map50_95", share, lead=True),
    _figure("mAP", "50", "map50", share),
)
RECALL = {
    size: _figure("recall", size, f"recall_{size}", share) for size in ("small", "medium", "large")
}
SHIFT = _figure("score", "shift", "confidence_shift", _change)
SIZE = _figure("model", "MB", "size_mb", three_digits)
MEMORY = _figure("memory", "MB", "peak_memory_mb", _whole)
GPU_MEMORY = _figure("GPU", "MB", "gpu_memory_mb", _whole)
POWER = _timed("power", "W", "power_w", three_digits)
ENERGY = (
    _timed("energy", "J/frame", "energy_per_frame_j", three_digits, lead=True),
    _timed("net", "J/frame", "net_energy_per_frame_j", three_digits),
    _timed("FPS", "per W", "fps_per_watt", three_digits),
)
HEAT = _timed("heat", "°C", "temperature_c", _whole)


def speed_of_float(lineup: Lineup) -> Figure:
    """Return the column of how many times its float parent's speed each has."""
    return Figure("speed", "of float", lineup.speed_up, "{:.2f}\N{MULTIPLICATION SIGN}".format)
