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

_POWERCAP = "sys/class/powercap"
_HWMON = "sys/class/hwmon"

_INA, _BATTERY = "ina2", "battery"

_BATTERY_HZ = 1.0
"""The kernel asks a battery's controller at most so often (cache_time of drivers/acpi/battery.c),
which has a new value every few seconds."""

_SCOPES: dict[str, Scope] = {
    # INA219, INA226, INA260 and their like, by the ina2xx and ina238 drivers, are wired into a
    # board's supply.
    _INA: "board",
    _BATTERY: "board",
    # ACPI 4.0, section 10.4: a server's input, as its BMC tells it.
    "power_meter": "board",
    "amdgpu": "gpu",
    "nouveau": "gpu",
    "fam15h_power": "package",
}
"""What the ``power1`` of an hwmon driver is of. Of two of a sort, as evaluation boards have, which
is where cannot be told."""


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
    """Yield the sensors and counters in the file tree, readable or not."""
    yield from _hwmon_power(tree, clock)
    yield from _jetson_inputs(tree, clock)
    yield from _packages(tree, clock)


def _number_in(path: Path) -> Callable[[], int]:
    return lambda: int(path.read_bytes())


def _scaled(read: Callable[[], int], unit: float) -> Callable[[], float]:
    return lambda: read() * unit


# ----------------------------------------------------------------------------------------- hwmon


def _hwmon_power(tree: Tree, clock: Clock) -> list[Found]:
    """Return whatever hwmon tells of power, sensors made to measure it first."""
    shown = {}
    for device in tree.children(_HWMON, "hwmon*"):
        # Some drivers tell a mean alone, over power1_average_interval milliseconds.
        files = (f"{device}/power1_{figure}" for figure in ("input", "average"))
        if power1 := next(filter(tree.exists, files), None):
            shown[device] = tree.locate(power1)
    sorts = {device: _sort_of(tree, device) for device in shown}
    found = []
    for device, file in shown.items():
        sort = sorts[device]
        read_w = _scaled(_number_in(file), 1e-6)
        if sort == _BATTERY:
            read_w = _while_discharging(tree, device, read_w)
        fastest_hz = _BATTERY_HZ if sort == _BATTERY else SAMPLE_HZ
        mean_ms = tree.integer(f"{device}/power1_average_interval") or 0
        meter = SamplingMeter(
            f"{tree.text(f'{device}/name')}:{device.rpartition('/')[2]}",
            _SCOPES.get(sort, "sensor") if list(sorts.values()).count(sort) == 1 else "sensor",
            "measured" if sort == _INA else "reported",
            read_w,
            hz=min(fastest_hz, 1000 / mean_ms) if mean_ms > 0 else fastest_hz,
            holds=sort == _BATTERY,
            clock=clock,
        )
        found.append(Found(meter, (file,), _HWMON_MEND))
    return sorted(found, key=lambda one: one.meter.kind != "measured")


def _sort_of(tree: Tree, device: str) -> str:
    name = tree.text(f"{device}/name") or ""
    if name.startswith(_INA):
        return _INA
    return _BATTERY if tree.text(f"{device}/device/type") == "Battery" else name


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
