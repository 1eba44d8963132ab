"""Windows of energy: known power replayed into recorded trees, and what the meters make of it.

The hand's integrals are closed forms, not sums over the samples.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musgd_cli.hardware.power import (
    Clock,
    Counter,
    CounterMeter,
    PowerMeter,
    SamplingMeter,
    choose_meter,
    find_meters,
)

NANO_INPUT = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input"
INA219 = "sys/class/hwmon/hwmon2/power1_input"
RAPL = "sys/class/powercap"

Copied = Callable[[str], Path]
Replay = Any
"""The class of conftest's fixture ``replay``, which cannot be imported by name."""


def put(path: Path, value: float) -> None:
    # Renamed into place: a reader must never see half a number, and sysfs never shows one.
    half = path.with_name(f"{path.name}.new")
    half.write_text(f"{round(value)}\n")
    half.replace(path)


@dataclass(frozen=True)
class Run:
    """A board at work: at rest, a rise of a second, then a ripple as frames come and go."""

    rest_w: float
    work_w: float
    ripple_w: float
    rest_s: float = 5.0
    ripple_hz: float = 0.37

    def watts(self, t: float) -> float:
        if t < self.rest_s:
            return self.rest_w
        risen, omega = min(1.0, t - self.rest_s), math.tau * self.ripple_hz
        ripple = self.ripple_w * math.sin(omega * (t - self.rest_s - 1)) if risen == 1.0 else 0.0
        return self.rest_w + (self.work_w - self.rest_w) * risen + ripple

    def joules(self, t: float) -> float:
        """Of the first ``t`` seconds."""
        if t < self.rest_s:
            return self.rest_w * t
        rising, omega = min(1.0, t - self.rest_s), math.tau * self.ripple_hz
        working = max(0.0, t - self.rest_s - 1)
        return (
            self.rest_w * t
            + (self.work_w - self.rest_w) * (rising**2 / 2 + working)
            + self.ripple_w * (1 - math.cos(omega * working)) / omega
        )


# --------------------------------------------------------------------------- replayed, in no time


def test_a_jetson_nanos_run_sampled_at_10_hz(copied: Copied, replay: Replay) -> None:
    tree, run = copied("jetson-nano"), Run(1.9, 5.7, 0.8)
    clock = replay(lambda t: put(tree / NANO_INPUT, 1000 * run.watts(t)), start_s=2.345)
    (meter,) = find_meters(tree, clock=clock)
    reading = clock.measure(meter, 57.0)
    assert reading.energy_j == pytest.approx(run.joules(59.345) - run.joules(2.345), rel=0.01)
    assert reading.seconds == pytest.approx(57.0)
    assert (reading.source, reading.scope, reading.kind) == (
        "ina3221:POM_5V_IN",
        "module",
        "measured",
    )
    assert reading.hz == 10.0


def test_an_ina219s_run(copied: Copied, replay: Replay) -> None:
    tree, run = copied("pi4b-ina219"), Run(2.7, 6.4, 0.5, ripple_hz=1.3)
    clock = replay(lambda t: put(tree / INA219, 1e6 * run.watts(t)))
    (meter,) = find_meters(tree, clock=clock)
    # Windows that adjoin: rest, the rise, work.
    for begin, end in ((0.0, 4.7), (4.7, 6.2), (6.2, 36.25)):
        reading = clock.measure(meter, end - begin)
        assert reading.energy_j == pytest.approx(run.joules(end) - run.joules(begin), rel=0.01)
        assert reading.source == "ina219:hwmon2"


def test_an_orins_rail_in_millivolts_and_milliamperes(copied: Copied, replay: Replay) -> None:
    tree, run = copied("orin-nano"), Run(4.0, 14.0, 1.0)

    def play(t: float) -> None:
        volts = 19.0 - 0.02 * run.watts(t)
        put(tree / "sys/class/hwmon/hwmon1/in1_input", 1000 * volts)
        put(tree / "sys/class/hwmon/hwmon1/curr1_input", 1000 * run.watts(t) / volts)

    clock = replay(play)
    (meter,) = find_meters(tree, clock=clock)
    reading = clock.measure(meter, 30.0)
    assert reading.energy_j == pytest.approx(run.joules(30.0), rel=0.01)


def test_a_pi5s_rails_without_what_is_not_measured(copied: Copied, replay: Replay) -> None:
    tree, run = copied("pi5"), Run(0.9, 4.6, 0.4, ripple_hz=0.1)
    answer = tree / "answers/vcgencmd pmic_read_adc"
    before = answer.read_text()
    assert "VDD_CORE_A current(7)=10.87674000A" in before

    def play(t: float) -> None:
        amperes = run.watts(t) / 0.8974594
        text = before.replace("=10.87674000A", f"={amperes:.8f}A")
        new = answer.with_suffix(".new")
        new.write_text(text)
        new.replace(answer)

    clock = replay(play)
    (meter,) = find_meters(tree, clock=clock)
    reading = clock.measure(meter, 60.0)
    # The other eleven rails of the recording, volts by amperes; EXT5V and BATT have no amperes.
    others_w = (
        0.06245952 * 3.306322
        + 0.1610285 * 1.798289
        + 0.00780744 * 1.102929
        + 0.1756674 * 1.104394
        + 0.3279125 * 0.8025633
        + 0.0003663 * 3.304942
        + 0.00042735 * 3.302194
        + 0.00579975 * 0.7973619
        + 0.0136752 * 5.07056
    )
    by_hand = run.joules(60.0) + 60.0 * others_w
    assert reading.energy_j == pytest.approx(by_hand, rel=0.01)
    assert (reading.scope, reading.kind, reading.hz) == ("rails", "reported", 2.0)


def test_a_pi5_that_loses_a_rail_gives_nothing(copied: Copied, replay: Replay) -> None:
    tree = copied("pi5")
    answer = tree / "answers/vcgencmd pmic_read_adc"
    lines = answer.read_text().splitlines(keepends=True)
    clock = replay(lambda t: answer.write_text("".join(lines[1:] if t > 3 else lines)))
    (meter,) = find_meters(tree, clock=clock)
    assert clock.measure(meter, 2.0) is not None
    assert clock.measure(meter, 5.0) is None


def test_rapl_counters_that_wrap_within_hours(copied: Copied, replay: Replay) -> None:
    tree, first, second = copied("x86-cpu"), Run(90, 400, 60, 100, 0.01), Run(80, 310, 40, 50, 0.02)
    period = 65_532_610_987

    def play(t: float) -> None:
        for package, run, start in (0, first, 65_000_000_000), (1, second, 17):
            count = (start + round(1e6 * run.joules(t))) % period
            put(tree / f"{RAPL}/intel-rapl:{package}/energy_uj", count)

    clock = replay(play)
    (meter,) = find_meters(tree, clock=clock)
    reading = clock.measure(meter, 7200.0)
    by_hand = first.joules(7200.0) + second.joules(7200.0)
    assert by_hand > 60 * period * 1e-6  # so many wraps
    assert reading.energy_j == pytest.approx(by_hand, rel=1e-6)
    assert (reading.scope, reading.kind, reading.hz) == ("package", "reported", None)


def test_a_graphics_cards_mean_as_often_as_it_comes(tmp_path: Path, replay: Replay) -> None:
    sensor = tmp_path / "sys/class/hwmon/hwmon0"
    sensor.mkdir(parents=True)
    (sensor / "name").write_text("power_meter\n")
    (sensor / "power1_average_interval").write_text("1000\n")
    run = Run(120, 360, 0)
    clock = replay(lambda t: put(sensor / "power1_average", 1e6 * run.watts(t)))
    (meter,) = find_meters(tmp_path, clock=clock)
    reading = clock.measure(meter, 60.0)
    assert reading.energy_j == pytest.approx(run.joules(60.0), rel=0.01)
    assert reading.hz == 1.0


@pytest.mark.parametrize(("seconds", "hz"), [(60.0, 0.2), (20.0, None)])
def test_a_batterys_rate_is_that_of_its_controller(
    seconds: float, hz: float | None, tmp_path: Path, replay: Replay
) -> None:
    sensor = tmp_path / "sys/class/hwmon/hwmon0"
    (sensor / "device").mkdir(parents=True)
    (sensor / "name").write_text("BAT0\n")
    (sensor / "device/type").write_text("Battery\n")
    (sensor / "device/status").write_text("Discharging\n")
    # A new value every 5 s, however often it is asked.
    clock = replay(lambda t: put(sensor / "power1_input", 9e6 + 1e5 * (t // 5)))
    (meter,) = find_meters(tmp_path, clock=clock)
    reading = clock.measure(meter, seconds)
    if hz is None:  # four values in 20 s: of the steps at its ends nothing is known
        assert reading is None
    else:
        assert reading.hz == pytest.approx(hz, rel=0.01)
        assert reading.power_w == pytest.approx(9.55, rel=0.02)


@pytest.mark.parametrize(
    ("cores", "share", "watts"),
    # boards.md: 2.7 W idle, 6.4 W with all four cores busy at the top clock.
    [(0, 1.0, 2.7), (4, 1.0, 6.4), (2, 1.0, 4.55), (4, 0.5, 4.55)],
)
def test_the_model_of_a_pi4b(
    cores: int, share: float, watts: float, copied: Copied, replay: Replay
) -> None:
    from musgd_cli.hardware.power.estimate import estimates
    from musgd_cli.hardware.tree import Tree

    tree = copied("pi4b")

    def play(t: float) -> None:
        # User and system; the time that it waits for the card is none of it.
        (tree / "proc/stat").write_text(f"cpu {round(70 * cores * t)} 0 {round(30 * cores * t)} ")
        with (tree / "proc/stat").open("a") as stat:
            stat.write(f"{round(9000 + 50 * t)} {round(50 * t)} 0 0 0 0 0\n")
        for core in range(4):
            folder = tree / f"sys/devices/system/cpu/cpu{core}/cpufreq"
            put(folder / "scaling_cur_freq", 1_800_000 * share)

    clock = replay(play)
    (meter,) = estimates(Tree(tree), clock)
    reading = clock.measure(meter, 30.0)
    assert reading.power_w == pytest.approx(watts, rel=0.01)
    assert (reading.source, reading.kind) == ("model:pi4b", "estimated")


# -------------------------------------------------------------------------------------- counters


def test_a_counter_that_stands_still_is_no_zero(copied: Copied, replay: Replay) -> None:
    clock = replay(lambda _: None)
    (meter,) = find_meters(copied("x86-gpu"), clock=clock)
    assert clock.measure(meter, 5.0) is None


def test_a_counter_without_range_that_goes_back_gives_nothing(
    copied: Copied, replay: Replay
) -> None:
    tree = copied("x86-gpu")
    (tree / RAPL / "intel-rapl:0/max_energy_range_uj").unlink()
    counter = tree / RAPL / "intel-rapl:0/energy_uj"
    clock = replay(lambda t: put(counter, 1e9 + 5e6 * t if t < 12 else 5e6 * t))
    (meter,) = find_meters(tree, clock=clock)
    assert clock.measure(meter, 11.0) is not None
    assert clock.measure(meter, 11.0) is None


def test_what_no_machine_draws_is_not_believed() -> None:
    counts = iter([0, 1_000_000])
    meter = CounterMeter("stub", "package", [Counter(lambda: next(counts), 1.0, None)])
    meter.begin()
    assert meter.end() is None  # a megajoule within a moment


@given(data=st.data(), period=st.integers(1, 2**64))
def test_wrapping_loses_nothing(data: st.DataObject, period: int) -> None:
    before = data.draw(st.integers(0, period))
    used = data.draw(st.integers(0, period - 1))
    counter = Counter(lambda: 0, 1.0, period)
    after = before + used
    # A count of ``period`` and one of 0 are the same energy; either may be shown.
    shown = after if after <= period else after - period
    assert counter.advance(before, shown) == used


# ------------------------------------------------------------------------------------ in real time


def test_a_slow_instruments_watts_are_right(copied: Copied) -> None:
    # Each answer takes 50 ms: the window is from the first to the last, not from the call.
    def read_w() -> float:
        time.sleep(0.05)
        return 4.0

    meter = SamplingMeter("slow", "board", "measured", read_w)
    meter.begin()
    time.sleep(0.2)
    reading = meter.end()
    assert reading is not None
    assert reading.power_w == pytest.approx(4.0, rel=1e-9)


class Hasty(Clock):
    """Runs a hundred times as fast as this machine's."""

    ahead_s = 0.0

    def now_s(self) -> float:
        return self.ahead_s

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.ahead_s += seconds
        return stop.wait(seconds / 100)


def test_a_value_is_of_the_middle_of_the_time_it_took() -> None:
    clock = Hasty()
    takes_s = iter([0.2])  # and no time from then on

    def read_w() -> float:
        half_s = next(takes_s, 0.0) / 2
        clock.ahead_s += half_s
        watts = 10 * clock.ahead_s
        clock.ahead_s += half_s
        return watts

    meter = SamplingMeter("ramp", "board", "measured", read_w, clock=clock)
    meter.begin()
    time.sleep(0.05)
    reading = meter.end()
    assert reading is not None
    assert reading.energy_j == pytest.approx(5 * ((0.1 + reading.seconds) ** 2 - 0.1**2))


def test_a_ramp_by_this_machines_clock() -> None:
    started_s = time.monotonic()
    run = Run(2.0, 10.0, 0.0, rest_s=0.3)
    meter = SamplingMeter(
        "ramp", "board", "measured", lambda: run.watts(time.monotonic() - started_s)
    )
    begun_s = time.monotonic() - started_s
    meter.begin()
    time.sleep(1.7)
    reading = meter.end()
    assert reading is not None
    by_hand = run.joules(begun_s + reading.seconds) - run.joules(begun_s)
    assert reading.energy_j == pytest.approx(by_hand, rel=0.01)
    assert reading.hz is not None and 3 < reading.hz <= 11


def vanish(path: Path) -> None:
    path.unlink()


def go_mad(path: Path) -> None:
    put(path, -5000)


def fall_silent(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize("fault", [vanish, go_mad, fall_silent])
@pytest.mark.parametrize("healed_s", [4.0, 9.0])
def test_a_sensor_that_fails_in_a_window_gives_nothing(
    fault: Callable[[Path], None], healed_s: float, copied: Copied, replay: Replay
) -> None:
    tree = copied("jetson-nano")
    rail = tree / NANO_INPUT

    def play(t: float) -> None:
        put(rail, 5000)
        if 3.0 <= t < healed_s:
            fault(rail)

    clock = replay(play)
    (meter,) = find_meters(tree, clock=clock)
    assert clock.measure(meter, 8.0) is None
    # The next window is none the worse, once the sensor is well.
    clock.skip(2.0)
    reading = clock.measure(meter, 5.0)
    assert reading is not None
    assert reading.power_w == pytest.approx(5)


def test_a_window_begun_again_starts_anew(copied: Copied) -> None:
    (meter,) = find_meters(copied("jetson-nano"))
    threads = threading.active_count()
    started_s = time.monotonic()
    meter.begin()
    time.sleep(0.3)
    meter.begin()
    time.sleep(0.1)
    reading = meter.end()
    assert reading is not None
    assert 0.1 <= reading.seconds < time.monotonic() - started_s - 0.3
    assert reading.energy_j == pytest.approx(5.716 * reading.seconds, rel=0.01)
    assert threading.active_count() == threads


def test_a_window_must_be_begun(copied: Copied) -> None:
    (meter,) = find_meters(copied("jetson-nano"))
    with pytest.raises(RuntimeError, match="begin"):
        meter.end()


# ---------------------------------------------------------------------------------- this machine


def test_this_machines_own_meter() -> None:
    meter: PowerMeter | None = choose_meter(None) or choose_meter(None, device="gpu")
    if meter is None:
        pytest.skip("this machine has no meter that this user may read")
    meter.begin()
    time.sleep(1.0)
    reading = meter.end()
    assert reading is not None
    assert reading.seconds >= 1.0
    assert 0.1 < reading.power_w < 5000
