"""What is seen from outside while frames are timed: energy, heat, clocks, and others at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from statistics import fmean
from typing import TypeVar

from musgd_cli.hardware import conditions
from musgd_cli.hardware.conditions import Conditions
from musgd_cli.hardware.nvml import first_gpu
from musgd_cli.hardware.power import PowerMeter
from musgd_cli.hardware.thermal import Device
from musgd_cli.records import Moment, PowerReading

T = TypeVar("T")

LOOKS_HZ = 2.0


@dataclass
class Watch:
    """The sensors of this machine over the timed frames of one report, all repeats.

    Args:
        device: What the model computes on.
        meter: Measures energy; ``None``: nothing does.
        look: Reads the sensors.
    """

    device: Device = "cpu"
    meter: PowerMeter | None = None
    look: Callable[[], Conditions] | None = None
    looks: list[tuple[float, Conditions]] = field(default_factory=list)
    """When, in seconds since 1970, and what was seen."""
    readings: list[PowerReading | None] = field(default_factory=list)
    """One a repeat; ``None``: the meter died in it or gave what cannot be."""
    gpu_memory_mb: float | None = None
    """Most that the watched processes held on the card, of all looks."""
    busy_s: float | None = 0.0
    """CPU seconds that the whole machine spent meanwhile; ``None`` where it does not tell."""

    def _look(self, pid: int) -> Conditions:
        gpu = first_gpu() if self.device == "gpu" else None
        if gpu is not None:
            used = gpu.process_memory_mb(pid)
            self.gpu_memory_mb = max(used or 0, self.gpu_memory_mb or 0) or None
        seen = self.look() if self.look is not None else conditions.look(device=self.device)
        self.looks.append((time.time(), seen))
        return seen

    @contextmanager
    def timed(self, pid: int) -> Iterator[None]:
        """Watch while frames are timed in the process ``pid``."""
        over = threading.Event()

        def keep_looking() -> None:
            while not over.wait(1 / LOOKS_HZ):
                self._look(pid)

        thread = threading.Thread(target=keep_looking, name="watch", daemon=True)
        before = self._look(pid)
        thread.start()
        if self.meter is not None:
            self.meter.begin()
        try:
            yield
        finally:
            # An external meter's file may lag for seconds: what is looked at ends before that.
            over.set()
            after = self._look(pid)
            if self.meter is not None:
                self.readings.append(self.meter.end())
            thread.join()
            self._add_busy(before.busy_s, after.busy_s)

    def _add_busy(self, before_s: float | None, after_s: float | None) -> None:
        if before_s is None or after_s is None or self.busy_s is None:
            self.busy_s = None
        else:
            self.busy_s += after_s - before_s

    # ------------------------------------------------------------------------------ summed up

    @property
    def temperature_c(self) -> float | None:
        """Highest."""
        return max(self._seen(lambda seen: seen.temperature_c), default=None)

    @property
    def cpu_mhz(self) -> float | None:
        """Mean."""
        clocks = self._seen(lambda seen: seen.cpu_mhz)
        return fmean(clocks) if clocks else None

    @property
    def cpu_mhz_highest(self) -> float | None:
        """Mean of the clock of the core that ran fastest."""
        clocks = self._seen(lambda seen: seen.cpu_mhz_max)
        return fmean(clocks) if clocks else None

    @property
    def gpu_mhz(self) -> float | None:
        """Mean."""
        clocks = self._seen(lambda seen: seen.gpu_mhz)
        return fmean(clocks) if clocks else None

    @property
    def throttled(self) -> bool | None:
        """At any time."""
        answers = self._seen(lambda seen: seen.throttled)
        return any(answers) if answers else None

    @property
    def throttle_reasons(self) -> tuple[str, ...]:
        """All that were seen."""
        return tuple(dict.fromkeys(chain(*self._seen(lambda seen: seen.throttle_reasons))))

    @property
    def governor(self) -> str | None:
        """As last seen."""
        return self.looks[-1][1].governor if self.looks else None

    @property
    def power_mode(self) -> str | None:
        """As last seen."""
        return self.looks[-1][1].power_mode if self.looks else None

    @property
    def power(self) -> PowerReading | None:
        """Of all repeats together; ``None`` unless the meter lasted through each."""
        whole = [reading for reading in self.readings if reading is not None]
        if not whole or len(whole) < len(self.readings):
            return None
        rates = [reading.hz for reading in whole if reading.hz is not None]
        return whole[0].model_copy(
            update={
                "energy_j": sum(reading.energy_j for reading in whole),
                "seconds": sum(reading.seconds for reading in whole),
                "hz": fmean(rates) if rates else None,
            }
        )

    def moment(self, at: float, t_s: float, fps: float) -> Moment:
        """Join a rate of frames with what the sensors said nearest to that time.

        Args:
            at: When, seconds since 1970.
            t_s: When, seconds since the first timed frame.
            fps: Frames a second then.
        """
        nearest = min(self.looks, key=lambda look: abs(look[0] - at))[1] if self.looks else None
        return Moment(
            t_s=round(t_s, 3),
            fps=round(fps, 4),
            temperature_c=nearest.temperature_c if nearest else None,
            cpu_mhz=nearest.cpu_mhz if nearest else None,
            throttled=nearest.throttled if nearest else None,
        )

    def _seen(self, what: Callable[[Conditions], T | None]) -> Sequence[T]:
        answers = (what(seen) for _, seen in self.looks)
        return [answer for answer in answers if answer is not None]


def at_rest(meter: PowerMeter | None, seconds: float) -> PowerReading | None:
    """Return what ``meter`` reads while nothing is measured; ``None`` where it gives no figure."""
    if meter is None or not seconds:
        return None
    meter.begin()
    try:
        time.sleep(seconds)
    finally:
        reading = meter.end()
    return reading
