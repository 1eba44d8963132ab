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

from musgd_cli.hardware.power import (
    Counter,
    PowerMeter,
    SamplingMeter,
    best_meter,
    find_meters,
    refused,
)

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
    assert 0.1 <= reading.seconds < 1
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


def test_a_counter_that_wraps_twice_in_a_long_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musgd_cli.hardware.power._COUNTER_CHECK_S", 0.01)
    tree = copied("x86-gpu", tmp_path)
    put(tree / RAPL / "intel-rapl:0/max_energy_range_uj", 10_000_000)
    counter = tree / RAPL / "intel-rapl:0/energy_uj"
    put(counter, 8_000_000)
    meter = meter_of(tree)
    meter.begin()
    for count in (2_000_000, 7_000_000, 1_000_000):
        put(counter, count)
        time.sleep(0.1)
    reading = meter.end()
    assert reading is not None
    assert reading.energy_j == pytest.approx(4 + 5 + 4, rel=1e-9)


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


def watts_at(seconds: float) -> float:
    """2 W for half a second, a straight rise to 10 W within a second, then 10 W."""
    return 2 + 8 * min(1.0, max(0.0, seconds - 0.5))


def joules_until(seconds: float) -> float:
    risen = min(1.0, max(0.0, seconds - 0.5))
    return 2 * seconds + 4 * risen**2 + 8 * max(0.0, seconds - 1.5)


def test_ramp_within_1_percent() -> None:
    started_s = time.monotonic()
    meter = SamplingMeter(
        "ramp", "board", "measured", lambda: watts_at(time.monotonic() - started_s)
    )
    begun_s = time.monotonic() - started_s
    meter.begin()
    time.sleep(2.0)
    reading = meter.end()
    assert reading is not None
    by_hand = joules_until(begun_s + reading.seconds) - joules_until(begun_s)
    assert reading.energy_j == pytest.approx(by_hand, rel=0.01)
    assert reading.hz is not None and 3 < reading.hz < 11.5


def test_ramp_replayed_on_the_nanos_rail_within_1_percent(tmp_path: Path) -> None:
    tree = copied("jetson-nano", tmp_path)
    rail, meter = tree / NANO_INPUT, meter_of(tree)
    for _ in range(3):
        stop, lags_s = threading.Event(), [0.0]
        put(rail, 2000)
        started_s = time.monotonic()

        def play(
            stop: threading.Event = stop, lags_s: list[float] = lags_s, start: float = started_s
        ) -> None:
            last_s = start
            while not stop.wait(0.002):
                put(rail, 1000 * watts_at(time.monotonic() - start))
                lags_s.append(time.monotonic() - last_s)
                last_s = time.monotonic()

        player = threading.Thread(target=play)
        player.start()
        begun_s = time.monotonic() - started_s
        meter.begin()
        time.sleep(2.0)
        reading = meter.end()
        stop.set()
        player.join()
        assert reading is not None
        assert (reading.source, reading.scope) == ("ina3221:POM_5V_IN", "module")
        if max(lags_s) < 0.03:
            by_hand = joules_until(begun_s + reading.seconds) - joules_until(begun_s)
            assert reading.energy_j == pytest.approx(by_hand, rel=0.01)
            return
    pytest.skip("this machine is too busy to replay a ramp")


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
        time.sleep(0.5)
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
    threads = threading.active_count()
    started_s = time.monotonic()
    meter.begin()
    time.sleep(0.3)
    meter.begin()
    time.sleep(0.1)
    reading = meter.end()
    assert reading is not None
    assert 0.1 <= reading.seconds < time.monotonic() - started_s - 0.3
    assert reading.energy_j == pytest.approx(5.716 * reading.seconds, rel=0.05)
    assert threading.active_count() == threads


def test_a_window_must_be_begun(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="begin"):
        meter_of(copied("jetson-nano", tmp_path)).end()
