"""Temperatures of the die, and whether clocks are held back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from musgd_cli.hardware import thermal
from musgd_cli.hardware.conditions import look

BOARDS = Path(__file__).parents[1] / "boards"


@pytest.mark.parametrize(
    ("name", "degrees"),
    [
        ("pi4b", 48.686),
        # Not the constant 100 of its PMIC, nor the hotter always-on zone outside the die.
        ("jetson-nano", 39.5),
        ("orin-nano", 48.906),
        # Not the hotter disk.
        ("x86-gpu", 43.0),
        # The hotter of two packages; AMD has no thermal zone.
        ("x86-cpu", 54.875),
        ("generic-arm64", 41.0),
        ("wsl", None),
    ],
)
def test_hottest_of_the_die(name: str, degrees: float | None) -> None:
    assert thermal.temperature_c(BOARDS / name) == degrees


@pytest.mark.parametrize("reading", ["", "-2147483648", "999000", "not a number"])
def test_a_sensor_that_talks_nonsense_is_not_believed(reading: str, tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text(f"{reading}\n")
    assert thermal.temperature_c(tmp_path) is None


@pytest.mark.parametrize(
    ("flags", "held_back", "reasons"),
    [
        ("0", False, ()),
        # The supply sags, and the firmware was told to leave the clocks alone.
        ("1", False, ("under-voltage",)),
        ("2", True, ("clock capped",)),
        ("4", True, ("throttled",)),
        ("8", True, ("soft temperature limit",)),
        ("50005", True, ("under-voltage", "throttled")),
        ("e0006", True, ("clock capped", "throttled")),
        # Long ago is not now.
        ("50000", False, ()),
        ("f0000", False, ()),
        ("not a number", None, None),
    ],
)
def test_firmware_of_a_pi(
    flags: str, held_back: bool | None, reasons: tuple[str, ...] | None, tmp_path: Path
) -> None:
    tree = tmp_path / "pi4b"
    shutil.copytree(BOARDS / "pi4b", tree, symlinks=True)
    (tree / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text(f"{flags}\n")
    assert thermal.throttled(tree) is held_back
    assert thermal.throttle_reasons(tree) == reasons
    seen = look(tree)
    assert (seen.throttled, seen.throttle_reasons) == (held_back, reasons)


@pytest.mark.parametrize(("alarm", "reasons"), [("1", ("under-voltage",)), ("0", None)])
def test_a_mainline_kernel_tells_of_low_voltage_alone(
    alarm: str, reasons: tuple[str, ...] | None, tmp_path: Path
) -> None:
    sensor = tmp_path / "sys/class/hwmon/hwmon1"
    sensor.mkdir(parents=True)
    (sensor / "name").write_text("rpi_volt\n")
    (sensor / "in0_lcrit_alarm").write_text(f"{alarm}\n")
    assert thermal.throttle_reasons(tmp_path) == reasons
    # Neither does an alarm tell what the firmware did to the clocks, nor its absence.
    assert thermal.throttled(tmp_path) is None


@pytest.mark.parametrize("name", ["pi5", "pi400"])
def test_free_clocks(name: str) -> None:
    assert thermal.throttled(BOARDS / name) is False
    assert thermal.throttle_reasons(BOARDS / name) == ()


@pytest.mark.parametrize("name", ["jetson-nano", "x86-cpu", "x86-gpu", "wsl"])
def test_unknown_is_not_free(name: str) -> None:
    assert thermal.throttled(BOARDS / name) is None
    assert thermal.throttle_reasons(BOARDS / name) is None
