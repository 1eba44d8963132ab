"""NVIDIA's management library, for the first GPU of this machine."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any


class Gpu:
    """The first NVIDIA GPU, while its driver answers."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle

    @property
    def name(self) -> str | None:
        """What NVIDIA calls it."""
        name = self._ask("nvmlDeviceGetName")
        # nvidia-ml-py gave bytes before version 12.
        return name.decode() if isinstance(name, bytes) else name

    @property
    def driver(self) -> str | None:
        """Version of the driver, e.g. ``580.95.05``."""
        try:
            version = self._library.nvmlSystemGetDriverVersion()
        except self._library.NVMLError:
            return None
        return version.decode() if isinstance(version, bytes) else str(version)

    @property
    def memory_mb(self) -> int | None:
        """Its memory in MB; ``None`` where it shares the machine's."""
        info = self._ask("nvmlDeviceGetMemoryInfo")
        return None if info is None else int(info.total) >> 20

    @property
    def temperature_c(self) -> float | None:
        """Of the die."""
        degrees = self._ask("nvmlDeviceGetTemperature", self._library.NVML_TEMPERATURE_GPU)
        return None if degrees is None else float(degrees)

    @property
    def energy_mj(self) -> int | None:
        """Millijoules since the driver was loaded; ``None`` before Volta."""
        energy: int | None = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return energy

    @property
    def power_mw(self) -> int | None:
        """Milliwatts of the whole card."""
        power: int | None = self._ask("nvmlDeviceGetPowerUsage")
        return power

    @property
    def clock_mhz(self) -> int | None:
        """Of its cores, right now."""
        clock: int | None = self._ask("nvmlDeviceGetClockInfo", self._library.NVML_CLOCK_SM)
        return clock

    @property
    def clock_event_reasons(self) -> int | None:
        """The bits of ``nvmlClocksEventReasons``: why clocks are not higher."""
        reasons: int | None = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return reasons

    def process_memory_mb(self, pid: int) -> int | None:
        """MB that a process holds on the card.

        ``None`` where the driver does not tell, or knows no such process: in a container it may
        count processes by the host's numbers.
        """
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses") or []
        used = [process.usedGpuMemory for process in processes if process.pid == pid]
        known = [size for size in used if size is not None]
        return sum(known) >> 20 if known else None

    def _ask(self, question: str, *arguments: Any) -> Any:
        ask: Callable[..., Any] = getattr(self._library, question)
        try:
            return ask(self._handle, *arguments)
        except self._library.NVMLError:  # not supported on this card, or the driver is gone
            return None


@cache
def first_gpu() -> Gpu | None:
    """Return the first NVIDIA GPU that programs here see; ``None`` without one or its driver.

    That is the one CUDA computes on, where it counts them in NVML's order, as
    `musgd_cli.runtime.cuda` has it do: what is metered is what works.
    """
    try:
        # The versioned name: on WSL the plain one may be a stub. Absent on most machines, and
        # asking for it spares them the import of pynvml.
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        index = _first_visible(pynvml)
        return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index))
    except pynvml.NVMLError:
        return None


def _first_visible(library: Any) -> int:
    """Return the index of the first GPU in ``CUDA_VISIBLE_DEVICES``; 0 where it names none.

    It holds indices, or UUIDs, of which the beginning will do.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    if first.isdecimal():
        return int(first)
    if first.startswith("GPU-"):
        for index in range(library.nvmlDeviceGetCount()):
            uuid = library.nvmlDeviceGetUUID(library.nvmlDeviceGetHandleByIndex(index))
            if (uuid.decode() if isinstance(uuid, bytes) else uuid).startswith(first):
                return index
    return 0
