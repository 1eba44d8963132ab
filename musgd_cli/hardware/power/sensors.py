"""The meters that a kernel or a driver shows: INA chips, RAPL, NVML, and any other hwmon power."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from musgd_cli.hardware.nvml import Gpu
from musgd_cli.hardware.power.meter import (
    SAMPLE_HZ,
    Clock,
    Counter,
    CounterMeter,
    PowerMeter,
    SamplingMeter,
    Scope,
)
from musgd_cli.hardware.tree import Tree
from musgd_cli.records import Kind

_POWERCAP = "sys/class/powercap"
_HWMON = "sys/class/hwmon"

_KNOWN: dict[str, Scope] = {
    # ACPI 4.0, section 10.4: the whole machine's input, as the BMC of a server tells it.
    "power_meter": "board",
    "amdgpu": "gpu",
    "nouveau": "gpu",
    "fam15h_power": "package",
}
"""Drivers whose ``power1`` is known to be of something."""


@dataclass(frozen=True)
class Found:
    """A meter, whether or not it can be read.

    Args:
        meter: Reads ``files``.
        files: What it stands on.
        mend: What lets this user read them.
    """

    meter: SamplingMeter | CounterMeter
    files: tuple[Path, ...]
    mend: str

    @property
    def denied(self) -> Path | None:
        """The first file that this user may not read."""
        for path in self.files:
            try:
                path.read_bytes()
            except PermissionError:
                return path
            except OSError:  # gone, or its chip does not answer: no rule mends that
                continue
        return None


def _udev_mend(name: str, subsystem: str, kernel: str, files: str) -> str:
    """Return the command that adds a udev rule: everyone may read ``files``."""
    return (
        f"""echo 'ACTION=="add", SUBSYSTEM=="{subsystem}", KERNEL=="{kernel}", """
        f"""RUN+="/bin/chmod {files}"' | sudo tee /etc/udev/rules.d/60-{name}.rules """
        "&& sudo udevadm control --reload "
        f"&& sudo udevadm trigger --action=add --subsystem-match={subsystem}"
    )


# Since CVE-2020-8694 the kernel lets only root read RAPL's counters.
_RAPL_MEND = _udev_mend("rapl", "powercap", "intel-rapl:*", "a+r /sys%p/energy_uj")
_HWMON_MEND = _udev_mend("hwmon-power", "hwmon", "hwmon*", "-R a+r /sys%p")
_IIO_MEND = _udev_mend("ina3221", "iio", "iio:device*", "-R a+r /sys%p")


def find_sensors(tree: Tree, clock: Clock) -> Iterator[Found]:
    """Yield the sensors and counters in the file tree, those of the widest scope first."""
    named, others = _hwmon_power(tree, clock)
    yield from named
    yield from _jetson_inputs(tree, clock)
    yield from _packages(tree, clock)
    yield from others


def _number_in(path: Path) -> Callable[[], int]:
    return lambda: int(path.read_bytes())


def _scaled(read: Callable[[], int], unit: float) -> Callable[[], float]:
    return lambda: read() * unit


# ----------------------------------------------------------------------------------------- hwmon


def _hwmon_power(tree: Tree, clock: Clock) -> tuple[list[Found], list[Found]]:
    """Return the hwmon sensors that measure the whole board, and all others.

    INA219, INA226, INA260 and their like, by the ina2xx and ina238 drivers, are wired into a
    board's supply. Of several, as evaluation boards have, which is at the input cannot be told.
    """
    devices = tree.children(_HWMON, "hwmon*")
    names = {device: tree.text(f"{device}/name") or "" for device in devices}
    inputs = [device for device, name in names.items() if name.startswith("ina2")]
    board: list[Found] = []
    others: list[Found] = []
    for device, name in names.items():
        # Some drivers tell a mean alone, over power1_average_interval milliseconds.
        files = (f"{device}/power1_{figure}" for figure in ("input", "average"))
        shown = next(filter(tree.exists, files), None)
        if shown is None or name == "ina3221":
            continue
        file = tree.locate(shown)
        kind: Kind = "reported"
        read_w = _scaled(_number_in(file), 1e-6)
        if device in inputs:
            kind = "measured"
            scope: Scope = "board" if len(inputs) == 1 else "sensor"
        elif tree.text(f"{device}/device/type") == "Battery":
            scope, read_w = "board", _while_discharging(tree, device, read_w)
        else:
            scope = _KNOWN.get(name, "sensor")
        mean_ms = tree.integer(f"{device}/power1_average_interval") or 0
        found = Found(
            SamplingMeter(
                f"{name}:{device.rpartition('/')[2]}",
                scope,
                kind,
                read_w,
                hz=min(SAMPLE_HZ, 1000 / mean_ms) if mean_ms > 0 else SAMPLE_HZ,
                clock=clock,
            ),
            (file,),
            _HWMON_MEND,
        )
        (board if scope == "board" else others).append(found)
    # A chip made to measure before a battery's gauge.
    board.sort(key=lambda found: found.meter.kind != "measured")
    return board, others


def _while_discharging(tree: Tree, device: str, read_w: Callable[[], float]) -> Callable[[], float]:
    """A battery feeds the whole machine, screen and all, but on mains its power is its own."""

    def read() -> float:
        if tree.text(f"{device}/device/status") != "Discharging":
            raise ValueError("the battery is not what feeds this machine")
        return read_w()

    return read


# ---------------------------------------------------------------------------------------- Jetson


def _jetson_inputs(tree: Tree, clock: Clock) -> Iterator[Found]:
    """Yield the INA3221 of a Jetson, its rail for the whole module's input.

    The rail is called POM_5V_IN on a Nano and VDD_IN on others. L4T's 4.9 kernel shows milliwatts
    through iio; later ones show volts and amperes through hwmon.
    """
    for chip in tree.children("sys/bus/i2c/drivers/ina3221x", "*-*"):
        for device in tree.children(chip, "iio:device*"):
            for label in tree.children(device, "rail_name_*"):
                number = label.rpartition("_")[2]
                milliwatts = tree.locate(f"{device}/in_power{number}_input")
                read_w = _scaled(_number_in(milliwatts), 1e-3)
                yield from _rail(tree, label, read_w, (milliwatts,), _IIO_MEND, clock)
    for device in tree.children(_HWMON, "hwmon*"):
        if tree.text(f"{device}/name") != "ina3221":
            continue
        for label in tree.children(device, "in*_label"):
            number = label.rpartition("/in")[2].removesuffix("_label")
            millivolts = tree.locate(f"{device}/in{number}_input")
            milliamperes = tree.locate(f"{device}/curr{number}_input")
            read_w = _product(_number_in(millivolts), _number_in(milliamperes))
            yield from _rail(tree, label, read_w, (millivolts, milliamperes), _HWMON_MEND, clock)


def _product(millivolts: Callable[[], int], milliamperes: Callable[[], int]) -> Callable[[], float]:
    return lambda: millivolts() * milliamperes() * 1e-6


def _rail(
    tree: Tree,
    label: str,
    read_w: Callable[[], float],
    files: tuple[Path, ...],
    mend: str,
    clock: Clock,
) -> Iterator[Found]:
    name = tree.text(label) or ""
    if name.endswith("_IN"):
        meter = SamplingMeter(f"ina3221:{name}", "module", "measured", read_w, clock=clock)
        yield Found(meter, files, mend)


# ------------------------------------------------------------------------------------------ RAPL


def _packages(tree: Tree, clock: Clock) -> Iterator[Found]:
    """Yield RAPL's counters of whole packages, as one meter: some would be passed off as all.

    The other zones, core, uncore, dram and psys, are within a package or cover all of them again.
    AMD's driver uses Intel's names.
    """
    zones = tree.children(_POWERCAP, "intel-rapl:*")
    named = {zone: tree.text(f"{zone}/name") or "" for zone in zones}
    packages = {zone: name for zone, name in named.items() if name.startswith("package")}
    if not packages:
        return
    files = tuple(tree.locate(f"{zone}/energy_uj") for zone in packages)
    counters = [
        Counter(_number_in(file), 1e-6, tree.integer(f"{zone}/max_energy_range_uj"))
        for zone, file in zip(packages, files, strict=True)
    ]
    source = f"rapl:{'+'.join(packages.values())}"
    yield Found(CounterMeter(source, "package", counters, clock=clock), files, _RAPL_MEND)


# ------------------------------------------------------------------------------------------ NVML


def gpu_meters(gpu: Gpu, clock: Clock) -> list[PowerMeter]:
    """Return the meter of an NVIDIA card: its counter, or before Volta its power, sampled."""
    if gpu.energy_mj is not None:
        counter = Counter(lambda: _answered(gpu.energy_mj), 1e-3, None)
        return [CounterMeter("nvml:energy", "gpu", [counter], clock=clock)]
    if gpu.power_mw is not None:
        read_w = _scaled(lambda: _answered(gpu.power_mw), 1e-3)
        return [SamplingMeter("nvml:power", "gpu", "reported", read_w, clock=clock)]
    return []


def _answered(value: int | None) -> int:
    if value is None:
        raise OSError("NVML no longer answers")
    return value
