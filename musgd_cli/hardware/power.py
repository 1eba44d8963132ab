"""Power meters: instruments that this machine has, never a model of what it should draw.

A meter measures windows: :meth:`PowerMeter.begin`, the work, :meth:`PowerMeter.end`. Where the
hardware counts energy itself, the counter is read; elsewhere power is sampled in a thread and
integrated. A Raspberry Pi 4B has no meter on board, and none is made up for it.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, Protocol

from musgd_cli.errors import UsageError
from musgd_cli.hardware.nvml import Gpu, first_gpu
from musgd_cli.hardware.tree import Tree
from musgd_cli.records import Kind, PowerReading

Scope = Literal["board", "module", "gpu", "package"]
"""What the energy is of: the board at its input, the compute module at its, one card, one chip."""

SAMPLE_HZ = 10.0
"""INA sensors average over tens of milliseconds; faster sampling reads the same value twice."""

_COUNTER_CHECK_S = 10.0
"""How often a counter is read within a window, so that it cannot wrap twice unseen: AMD's RAPL
counter wraps after 65 kJ, which 500 W take 131 s to use."""

_ABSURD_W = 100_000.0

_POWERCAP = "sys/class/powercap"


class PowerMeter(Protocol):
    """An instrument that measures the energy of a window."""

    source: str
    """Where the figure comes from, e.g. ``rapl:package-0``."""
    scope: Scope
    kind: Kind
    """``measured`` where a sensor is read, ``reported`` where firmware worked it out."""
    hz: float | None
    """Samples a second that are meant; a reading has what came of it. ``None`` for a counter."""

    def begin(self) -> None:
        """Begin a window; one that is open is dropped."""

    def end(self) -> PowerReading | None:
        """End the window; ``None`` when the meter died in it or gave what cannot be.

        Raises:
            RuntimeError: No window was begun.
        """


# ------------------------------------------------------------------------------ reading windows


class _WindowMeter(ABC):
    """Reads an instrument at the window's begin and end, and at a steady rate between them.

    Args:
        source: See :class:`PowerMeter`, as for the next three.
        period_s: Seconds between two readings within a window.
    """

    def __init__(
        self, source: str, scope: Scope, kind: Kind, hz: float | None, period_s: float
    ) -> None:
        self.source = source
        self.scope: Scope = scope
        self.kind: Kind = kind
        self.hz = hz
        self._period_s = period_s
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._died = False

    @abstractmethod
    def _restart(self) -> None:
        """Forget the last window."""

    @abstractmethod
    def _take(self) -> None:
        """Take a reading. OSError or ValueError: the instrument is gone or talks nonsense."""

    @abstractmethod
    def _energy_j(self) -> float:
        """Return the energy between the window's first and last reading."""

    def begin(self) -> None:
        self._halt()
        self._stop = threading.Event()
        self._died = False
        self._readings = 0
        self._restart()
        self._began_s = time.monotonic()
        self._try_take()
        self._thread = threading.Thread(
            target=self._watch, args=(self._stop,), name=f"power {self.source}", daemon=True
        )
        self._thread.start()

    def end(self) -> PowerReading | None:
        if self._thread is None:
            raise RuntimeError("end() without begin()")
        self._halt()
        self._try_take()
        seconds = time.monotonic() - self._began_s
        energy_j = self._energy_j() if not self._died else math.nan
        # Nothing runs on 0 W: a counter that stands still is stuck, or the window too short.
        if not 0 < energy_j < _ABSURD_W * seconds:
            return None
        return PowerReading(
            energy_j=energy_j,
            seconds=seconds,
            source=self.source,
            scope=self.scope,
            kind=self.kind,
            hz=None if self.hz is None else round(self._readings / seconds, 1),
        )

    def _try_take(self) -> None:
        try:
            self._take()
            self._readings += 1
        except (OSError, ValueError):
            self._died = True

    def _watch(self, stop: threading.Event) -> None:
        due_s = time.monotonic() + self._period_s
        while not self._died and not stop.wait(max(0.0, due_s - time.monotonic())):
            self._try_take()
            due_s = max(due_s + self._period_s, time.monotonic())

    def _halt(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None


@dataclass(frozen=True)
class Counter:
    """Energy that hardware adds up.

    Args:
        read: Returns the count. OSError or ValueError: the counter is gone.
        joules: Of one count.
        period: Counts after which it starts from 0 again; ``None``: it never does.
    """

    read: Callable[[], int]
    joules: float
    period: int | None

    def advance(self, before: int, after: int) -> int:
        """Return the counts from ``before`` to ``after``, across at most one wrap.

        Raises:
            ValueError: It went back and has no period, as after a driver's restart.
        """
        if after >= before:
            return after - before
        if self.period is None or before > self.period:
            raise ValueError(f"the counter went back from {before} to {after}")
        return self.period - before + after


class CounterMeter(_WindowMeter):
    """Sums up what hardware counters count: several, where there are several packages."""

    def __init__(self, source: str, scope: Scope, counters: Sequence[Counter]) -> None:
        super().__init__(source, scope, "reported", None, _COUNTER_CHECK_S)
        self._counters = counters

    def _restart(self) -> None:
        self._last: list[int] | None = None
        self._total_j = 0.0

    def _take(self) -> None:
        counts = [counter.read() for counter in self._counters]
        for counter, before, after in zip(
            self._counters, self._last or counts, counts, strict=True
        ):
            self._total_j += counter.advance(before, after) * counter.joules
        self._last = counts

    def _energy_j(self) -> float:
        return self._total_j


class SamplingMeter(_WindowMeter):
    """Samples power and integrates it with the trapezoid rule.

    Args:
        read_w: Returns watts. OSError or ValueError: the sensor is gone.
    """

    def __init__(self, source: str, scope: Scope, kind: Kind, read_w: Callable[[], float]) -> None:
        super().__init__(source, scope, kind, SAMPLE_HZ, 1 / SAMPLE_HZ)
        self._read_w = read_w

    def _restart(self) -> None:
        self._samples: list[tuple[float, float]] = []

    def _take(self) -> None:
        asked_s = time.monotonic()
        watts = self._read_w()
        if not 0 <= watts < _ABSURD_W:
            raise ValueError(f"{self.source} reads {watts} W")
        # A sensor behind I2C takes milliseconds; the value is of about the middle of them.
        self._samples.append(((asked_s + time.monotonic()) / 2, watts))

    def _energy_j(self) -> float:
        return sum(
            (later_s - earlier_s) * (earlier_w + later_w) / 2
            for (earlier_s, earlier_w), (later_s, later_w) in pairwise(self._samples)
        )


# ------------------------------------------------------------------------------- finding meters


def find_meters(root: Path = Path("/")) -> list[PowerMeter]:
    """Return the meters that can be read, those of the widest scope first.

    Args:
        root: ``/``, or a recorded tree, whose files are then read as if they were live.
    """
    tree = Tree(root)
    meters = [*_board_meters(tree), *_module_meters(tree), *_package_meters(tree)]
    if tree.live and (gpu := first_gpu()):
        meters += _gpu_meters(gpu)
    return meters


def best_meter(
    root: Path = Path("/"), *, device: Literal["cpu", "gpu"] = "cpu"
) -> PowerMeter | None:
    """Return the meter that says most of work on ``device``; ``None`` when none can.

    The board's input before the module's before the chip's own. The GPU's meter says nothing of
    work on the CPU, nor the CPU's of work on the GPU.
    """
    own: Scope = "gpu" if device == "gpu" else "package"
    meters = find_meters(root)
    return next((m for m in meters if m.scope in {"board", "module", own}), None)


def choose_meter(
    spec: str | None,
    *,
    root: Path = Path("/"),
    device: Literal["cpu", "gpu"] = "cpu",
    estimate: bool = False,  # noqa: ARG001
) -> PowerMeter | None:
    """Return the meter that ``spec`` names.

    Args:
        spec: ``None``: the best one; ``none``: no meter; a meter's source, or a unique beginning of
            it; a path that ends in ``.csv``: what an external meter writes.
        root: ``/``, or a recorded tree.
        device: What works while it measures.
        estimate: Where there is no meter, a model of this board will do.

    Raises:
        UsageError: No meter, or several, go by that name.
        UnsupportedError: The meter is there but may not be read.
    """
    if spec is None:
        return best_meter(root, device=device)
    if spec == "none":
        return None
    meters = find_meters(root)
    named = [m for m in meters if m.source == spec] or [
        m for m in meters if spec and m.source.startswith(spec)
    ]
    if len(named) == 1:
        return named[0]
    sources = ", ".join(meter.source for meter in meters)
    raise UsageError(
        f"--meter {spec} names {'several meters' if named else 'no meter'}",
        f"pass one of {sources}, a .csv file, or none" if sources else "pass a .csv file, or none",
    )


def why_none(root: Path = Path("/"), device: Literal["cpu", "gpu"] = "cpu") -> str:
    """Say why :func:`best_meter` found none."""
    if device == "cpu" and (paths := refused(root)):
        return f"RAPL may not be read by this user: {paths[0]}"
    return "no meter on this board"


def refused(root: Path = Path("/")) -> tuple[Path, ...]:
    """Return the RAPL counters that are there but may not be read.

    Since CVE-2020-8694 the kernel lets only root read them.
    """
    tree = Tree(root)
    counters = (tree.locate(f"{zone}/energy_uj") for zone in _packages(tree))
    return tuple(path for path in counters if path.exists() and not _readable(_counter_of(path)))


def _readable(read: Callable[[], float]) -> bool:
    try:
        read()
    except (OSError, ValueError):
        return False
    return True


def _counter_of(path: Path) -> Callable[[], int]:
    return lambda: int(path.read_bytes())


def _board_meters(tree: Tree) -> list[PowerMeter]:
    """INA219, INA226, INA260 and their like on I2C, at the board's input, by the ina2xx driver."""
    meters: list[PowerMeter] = []
    for device in tree.children("sys/class/hwmon", "hwmon*"):
        name = tree.text(f"{device}/name") or ""
        microwatts = _counter_of(tree.locate(f"{device}/power1_input"))
        if name.startswith("ina2") and _readable(microwatts):
            source = f"{name}:{device.rpartition('/')[2]}"
            read_w = _scaled(microwatts, 1e-6)
            meters.append(SamplingMeter(source, "board", "measured", read_w))
    # Of several, as evaluation boards have, which sits at the input cannot be told.
    return meters if len(meters) == 1 else []


def _module_meters(tree: Tree) -> list[PowerMeter]:
    """The INA3221 of a Jetson, its rail for the whole module's input.

    The rail is called POM_5V_IN on a Nano and VDD_IN on others. L4T's 4.9 kernel shows milliwatts
    through iio; later ones show volts and amperes through hwmon.
    """
    meters: list[PowerMeter] = []
    for chip in tree.children("sys/bus/i2c/drivers/ina3221x", "*-*"):
        for device in tree.children(chip, "iio:device*"):
            for label in tree.children(device, "rail_name_*"):
                rail, number = tree.text(label) or "", label.rpartition("_")[2]
                milliwatts = _counter_of(tree.locate(f"{device}/in_power{number}_input"))
                if rail.endswith("_IN") and _readable(milliwatts):
                    meters.append(_rail(rail, _scaled(milliwatts, 1e-3)))
    for device in tree.children("sys/class/hwmon", "hwmon*"):
        if tree.text(f"{device}/name") != "ina3221":
            continue
        for label in tree.children(device, "in*_label"):
            rail, number = tree.text(label) or "", label.rpartition("/in")[2].removesuffix("_label")
            millivolts = _counter_of(tree.locate(f"{device}/in{number}_input"))
            milliamperes = _counter_of(tree.locate(f"{device}/curr{number}_input"))
            read_w = _product(millivolts, milliamperes, 1e-6)
            if rail.endswith("_IN") and _readable(read_w):
                meters.append(_rail(rail, read_w))
    return meters


def _rail(rail: str, read_w: Callable[[], float]) -> PowerMeter:
    return SamplingMeter(f"ina3221:{rail}", "module", "measured", read_w)


def _scaled(read: Callable[[], int], unit: float) -> Callable[[], float]:
    return lambda: read() * unit


def _product(left: Callable[[], int], right: Callable[[], int], unit: float) -> Callable[[], float]:
    return lambda: left() * right() * unit


def _packages(tree: Tree) -> dict[str, str]:
    """Return the RAPL zones of whole packages, with their names.

    The others, core, uncore, dram and psys, are within a package or cover all of them again. AMD's
    driver uses Intel's names.
    """
    zones = tree.children(_POWERCAP, "intel-rapl:*")
    named = {zone: tree.text(f"{zone}/name") or "" for zone in zones}
    return {zone: name for zone, name in named.items() if name.startswith("package")}


def _package_meters(tree: Tree) -> list[PowerMeter]:
    packages = _packages(tree)
    counters = [
        Counter(
            _counter_of(tree.locate(f"{zone}/energy_uj")),
            1e-6,
            tree.integer(f"{zone}/max_energy_range_uj"),
        )
        for zone in packages
    ]
    # Some of the packages' energy would be passed off as all of it.
    if not counters or not all(_readable(counter.read) for counter in counters):
        return []
    return [CounterMeter(f"rapl:{'+'.join(packages.values())}", "package", counters)]


def _gpu_meters(gpu: Gpu) -> list[PowerMeter]:
    if gpu.energy_mj is not None:
        counter = Counter(lambda: _answered(gpu.energy_mj), 1e-3, None)
        return [CounterMeter("nvml:energy", "gpu", [counter])]
    if gpu.power_mw is not None:
        read_w = _scaled(lambda: _answered(gpu.power_mw), 1e-3)
        return [SamplingMeter("nvml:power", "gpu", "reported", read_w)]
    return []


def _answered(value: int | None) -> int:
    if value is None:
        raise OSError("NVML no longer answers")
    return value
