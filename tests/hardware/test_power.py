"""Meters replayed: recorded trees whose files change while a window is open."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musgd_cli.hardware.power import Counter, PowerMeter, best_meter, find_meters, refused
from musgd_cli.records import PowerReading

BOARDS = Path(__file__).parents[1] / "boards"
NANO_INPUT = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input"
RAPL = "sys/class/powercap"


def copied(name: str, tmp_path: Path) -> Path:
    tree = tmp_path / name
    shutil.copytree(BOARDS / name, tree, symlinks=True)
    return tree


def meter_of(tree: Path) -> PowerMeter:
    meter = best_meter(tree)
    assert meter is not None
    return meter


def put(path: Path, value: float) -> None:
    # Renamed into place: a reader must never see half a number, and sysfs never shows one.
    half = path.with_name(f"{path.name}.new")
    half.write_text(f"{round(value)}\n")
    half.replace(path)


def replay(meter: PowerMeter, play: Callable[[float], None], seconds: float) -> PowerReading | None:
    """Measure a window in which ``play`` sets the files to what they show at each time."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.002):
            play(min(1.0, (time.monotonic() - began_s) / seconds))

    began_s = time.monotonic()
    play(0.0)
    player = threading.Thread(target=run)
    player.start()
    meter.begin()
    time.sleep(seconds)
    reading = meter.end()
    stop.set()
    player.join()
    return reading


# --------------------------------------------------------------------------------- which meters


@pytest.mark.parametrize(
    ("name", "source", "scope", "kind", "hz"),
    [
        ("pi4b-ina219", "ina219:hwmon2", "board", "measured", 10.0),
        ("jetson-nano", "ina3221:POM_5V_IN", "module", "measured", 10.0),
        ("orin-nano", "ina3221:VDD_IN", "module", "measured", 10.0),
        ("x86-gpu", "rapl:package-0", "package", "reported", None),
        ("x86-cpu", "rapl:package-0+package-1", "package", "reported", None),
    ],
)
def test_the_meter_of_each_board(
    name: str, source: str, scope: str, kind: str, hz: float | None
) -> None:
    meters = find_meters(BOARDS / name)
    assert [(m.source, m.scope, m.kind, m.hz) for m in meters] == [(source, scope, kind, hz)]


@pytest.mark.parametrize(
    "name", ["pi4b", "pi4b-docker", "pi5", "jetson-nano-2gb", "jetson-nano-mainline", "wsl"]
)
def test_no_meter_is_made_up(name: str) -> None:
    assert find_meters(BOARDS / name) == []
    assert best_meter(BOARDS / name) is None


def test_the_chips_own_meter_says_nothing_of_work_on_the_gpu() -> None:
    assert best_meter(BOARDS / "x86-gpu", device="gpu") is None
    board = best_meter(BOARDS / "pi4b-ina219", device="gpu")
    assert board is not None and board.scope == "board"


def test_the_board_is_measured_rather_than_the_chip(tmp_path: Path) -> None:
    tree = copied("x86-cpu", tmp_path)
    sensor = tree / "sys/class/hwmon/hwmon7"
    sensor.mkdir()
    (sensor / "name").write_text("ina260\n")
    (sensor / "power1_input").write_text("48000000\n")
    assert [meter.scope for meter in find_meters(tree)] == ["board", "package"]
    assert meter_of(tree).source == "ina260:hwmon7"


def test_of_two_board_sensors_neither_is_believed(tmp_path: Path) -> None:
    tree = copied("pi4b-ina219", tmp_path)
    shutil.copytree(tree / "sys/class/hwmon/hwmon2", tree / "sys/class/hwmon/hwmon3")
    assert find_meters(tree) == []


def test_counters_that_may_not_be_read_are_told(tmp_path: Path) -> None:
    tree = copied("x86-cpu", tmp_path)
    assert refused(tree) == ()
    counter = tree / RAPL / "intel-rapl:1/energy_uj"
    counter.unlink()
    counter.mkdir()  # fails to open for root as well, whom permissions do not stop
    assert refused(tree) == (counter,)
    # One package's energy is not passed off as both's.
    assert find_meters(tree) == []


# ------------------------------------------------------------------------------------- counters


def test_counter_energy_within_1_percent(tmp_path: Path) -> None:
    tree = copied("x86-gpu", tmp_path)
    counter = tree / RAPL / "intel-rapl:0/energy_uj"
    meter = meter_of(tree)
    put(counter, 182361048611)
    meter.begin()
    time.sleep(0.1)
    put(counter, 182361048611 + 5_250_000)
    reading = meter.end()
    assert reading is not None
    assert reading.energy_j == pytest.approx(5.25, rel=1e-9)
    assert reading.seconds == pytest.approx(0.1, rel=0.5)
    assert reading.power_w == pytest.approx(5.25 / reading.seconds)
    assert (reading.source, reading.scope, reading.kind) == (
        "rapl:package-0",
        "package",
        "reported",
    )
    assert reading.hz is None


def test_each_package_wraps_by_itself(tmp_path: Path) -> None:
    tree = copied("x86-cpu", tmp_path)
    first = tree / RAPL / "intel-rapl:0/energy_uj"
    second = tree / RAPL / "intel-rapl:1/energy_uj"
    meter = meter_of(tree)
    put(first, 65_532_610_987 - 1_000_000)
    put(second, 7_000_000)
    meter.begin()
    time.sleep(0.05)
    put(first, 3_000_000)
    put(second, 9_000_000)
    reading = meter.end()
    assert reading is not None
    assert reading.energy_j == pytest.approx(1 + 3 + 2, rel=1e-9)


def test_a_counter_that_stands_still_is_no_zero(tmp_path: Path) -> None:
    meter = meter_of(copied("x86-gpu", tmp_path))
    meter.begin()
    time.sleep(0.02)
    assert meter.end() is None


def test_a_counter_without_range_that_goes_back_gives_nothing(tmp_path: Path) -> None:
    tree = copied("x86-gpu", tmp_path)
    (tree / RAPL / "intel-rapl:0/max_energy_range_uj").unlink()
    meter = meter_of(tree)
    meter.begin()
    put(tree / RAPL / "intel-rapl:0/energy_uj", 1)
    assert meter.end() is None


@given(data=st.data(), period=st.integers(1, 2**64))
def test_wrapping_loses_nothing(data: st.DataObject, period: int) -> None:
    before = data.draw(st.integers(0, period))
    used = data.draw(st.integers(0, period - 1))
    counter = Counter(lambda: 0, 1.0, period)
    after = before + used
    # A count of ``period`` and one of 0 are the same energy; either may be shown.
    shown = after if after <= period else after - period
    assert counter.advance(before, shown) == used


# ------------------------------------------------------------------------------------- sampling


def test_ramp_on_the_nanos_rail_within_1_percent(tmp_path: Path) -> None:
    """2 W, a straight rise to 10 W, 10 W: 2 * .5 + 6 * 1 + 10 * .5 = 12 J in 2 s."""
    tree = copied("jetson-nano", tmp_path)
    rail = tree / NANO_INPUT

    def play(share: float) -> None:
        put(rail, 2000 + 8000 * min(1.0, max(0.0, 2 * share - 0.5)))

    reading = replay(meter_of(tree), play, 2.0)
    assert reading is not None
    late_j = 10 * (reading.seconds - 2.0)
    assert reading.energy_j == pytest.approx(12 + late_j, rel=0.01)
    assert reading.hz == pytest.approx(10, rel=0.2)
    assert (reading.source, reading.scope) == ("ina3221:POM_5V_IN", "module")


def test_volts_times_amperes_on_the_orin(tmp_path: Path) -> None:
    meter = meter_of(copied("orin-nano", tmp_path))
    meter.begin()
    time.sleep(0.25)
    reading = meter.end()
    assert reading is not None
    assert reading.power_w == pytest.approx(5.064 * 0.984, rel=0.01)


def test_microwatts_of_an_ina219(tmp_path: Path) -> None:
    meter = meter_of(copied("pi4b-ina219", tmp_path))
    meter.begin()
    time.sleep(0.25)
    reading = meter.end()
    assert reading is not None
    assert reading.power_w == pytest.approx(5.14, rel=0.01)


def vanish(path: Path) -> None:
    path.unlink()


def go_mad(path: Path) -> None:
    put(path, -5000)


def fall_silent(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize("fault", [vanish, go_mad, fall_silent])
@pytest.mark.parametrize("heals", [True, False])
def test_a_sensor_that_fails_in_a_window_gives_nothing(
    fault: Callable[[Path], None], heals: bool, tmp_path: Path
) -> None:
    tree = copied("jetson-nano", tmp_path)
    meter, rail = meter_of(tree), tree / NANO_INPUT
    meter.begin()
    time.sleep(0.05)
    fault(rail)
    if heals:  # after a sample met the fault
        time.sleep(0.2)
        put(rail, 5000)
    assert meter.end() is None
    # The next window is none the worse.
    put(rail, 5000)
    meter.begin()
    time.sleep(0.15)
    reading = meter.end()
    assert reading is not None
    assert reading.power_w == pytest.approx(5, rel=0.02)


def test_a_window_begun_again_starts_anew(tmp_path: Path) -> None:
    meter = meter_of(copied("jetson-nano", tmp_path))
    before = threading.active_count()
    meter.begin()
    time.sleep(0.3)
    meter.begin()
    time.sleep(0.1)
    reading = meter.end()
    assert reading is not None
    assert reading.seconds < 0.3
    assert reading.energy_j == pytest.approx(5.716 * reading.seconds, rel=0.05)
    assert threading.active_count() == before
