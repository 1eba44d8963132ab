"""What is watched while frames are timed, and power that is handed in later."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import invented_reports as invented
import pytest

from musgd_cli.bench.afterwards import with_power
from musgd_cli.bench.watch import Watch, at_rest
from musgd_cli.errors import UsageError
from musgd_cli.hardware.conditions import Conditions
from musgd_cli.hardware.power.trace import read_trace
from musgd_cli.records import PowerReading


def conditions(**fields: Any) -> Conditions:
    nothing: dict[str, Any] = dict.fromkeys(Conditions.__dataclass_fields__)
    return Conditions(**nothing | fields)


class Meter:
    source, scope, kind, hz = "psu", "board", "measured", None

    def __init__(self, *readings_j: float | None) -> None:
        self._readings_j = iter(readings_j)

    def begin(self) -> None: ...

    def end(self) -> PowerReading | None:
        energy_j = next(self._readings_j)
        if energy_j is None:
            return None
        return PowerReading(
            energy_j=energy_j, seconds=2.0, source="psu", scope="board", kind="measured", hz=None
        )


def test_heat_is_the_highest_and_throttling_any_of_it() -> None:
    seen = iter([50.0, 71.0, 64.0, 60.0])
    states = iter([False, True, False, False])
    watch = Watch(look=lambda: conditions(temperature_c=next(seen), throttled=next(states)))
    for _ in range(2):  # each looks at its begin and at its end
        with watch.timed(0):
            pass
    assert watch.temperature_c == 71
    assert watch.throttled is True


def test_all_reasons_that_were_seen_are_kept() -> None:
    seen = iter([(), ("under-voltage",), None, ("throttled", "under-voltage")])
    watch = Watch(look=lambda: conditions(throttle_reasons=next(seen)))
    for _ in range(2):
        with watch.timed(0):
            pass
    assert watch.throttle_reasons == ("under-voltage", "throttled")


def test_the_clock_of_the_fastest_core_is_a_mean_over_time() -> None:
    clocks = iter([2400.0, 1800.0])
    watch = Watch(look=lambda: conditions(cpu_mhz=900.0, cpu_mhz_max=next(clocks)))
    with watch.timed(0):
        pass
    assert (watch.cpu_mhz, watch.cpu_mhz_highest) == (900, 2100)


def test_what_no_sensor_tells_is_none() -> None:
    watch = Watch(look=conditions)
    with watch.timed(0):
        pass
    assert (watch.temperature_c, watch.throttled, watch.cpu_mhz) == (None, None, None)
    assert watch.busy_s is None
    assert watch.power is None
    moment = watch.moment(time.time(), 0.5, 10.0)
    assert (moment.fps, moment.temperature_c, moment.throttled) == (10.0, None, None)


def test_busy_seconds_are_those_of_the_windows_alone() -> None:
    busy = iter([100.0, 103.0, 500.0, 501.5])
    watch = Watch(look=lambda: conditions(busy_s=next(busy)))
    for _ in range(2):
        with watch.timed(0):
            pass
    assert watch.busy_s == pytest.approx(4.5)


def test_energy_is_of_all_repeats_or_of_none() -> None:
    for readings_j, power_w in (((6.0, 10.0), 4.0), ((6.0, None), None), ((None, 6.0), None)):
        watch = Watch(meter=Meter(*readings_j), look=conditions)  # type: ignore[arg-type]
        for _ in readings_j:
            with watch.timed(0):
                pass
        assert (None if watch.power is None else watch.power.power_w) == power_w


def test_waiting_for_a_slow_meter_is_no_part_of_what_is_seen() -> None:
    class Slow(Meter):
        def end(self) -> PowerReading | None:
            self.looks_before = len(watch.looks)
            return super().end()

    meter = Slow(6.0)
    watch = Watch(meter=meter, look=conditions)  # type: ignore[arg-type]
    with watch.timed(0):
        pass
    assert len(watch.looks) == meter.looks_before


def test_a_window_that_is_broken_off_is_closed() -> None:
    watch = Watch(meter=Meter(6.0), look=conditions)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt), watch.timed(0):
        raise KeyboardInterrupt
    assert len(watch.readings) == 1


def test_a_moment_has_what_was_seen_nearest_to_it() -> None:
    watch = Watch(look=conditions)
    watch.looks = [(at, conditions(temperature_c=at - 60)) for at in (100.0, 110.0)]
    assert watch.moment(104, 0.4, 1.0).temperature_c == 40
    assert watch.moment(106, 0.6, 1.0).temperature_c == 50


def test_rest_is_read_only_where_there_is_a_meter_and_time() -> None:
    assert at_rest(None, 10.0) is None
    assert at_rest(Meter(6.0), 0) is None  # type: ignore[arg-type]
    reading = at_rest(Meter(6.0), 0.01)  # type: ignore[arg-type]
    assert reading is not None
    assert reading.power_w == 3


# --------------------------------------------------------------------------------- handed in later


def repeats(*begins: float) -> list[dict[str, Any]]:
    first = {"load_ms": 1, "first_inference_ms": 1, "warmup": 9, "warmup_s": 1, "steady": True}
    return [{"began": at, "seconds": 2.0, "n": 20, "p50_ms": 90.0, **first} for at in begins]


def ramp(folder: Path) -> Path:
    """From 2 W a rise of 1 W a second, ten samples a second, for 20 s."""
    rows = [f"{1_800_000_000 + i / 10:.1f},{2 + i / 10:.1f}" for i in range(201)]
    file = folder / "meter.csv"
    file.write_text("\n".join(["time,power_w", *rows]) + "\n")
    return file


def test_a_trace_gives_the_energy_of_the_repeats_and_not_of_the_gaps(tmp_path: Path) -> None:
    file = ramp(tmp_path)
    made = repeats(1_800_000_001.05, 1_800_000_011.05)
    report = with_power(
        invented.report(frames=40, fps_end_to_end=10.0, repeats=made, power_w=None),
        read_trace(file),
        file,
    )
    # At the middles of the repeats, 2.05 and 12.05 s, it is 4.05 and 14.05 W.
    assert report.power_w == pytest.approx(9.05, rel=1e-6)
    assert report.energy_per_frame_j == pytest.approx(9.05 * 4 / 40, rel=1e-6)
    assert report.net_energy_per_frame_j is None
    assert report.fps_per_watt == pytest.approx(10 / 9.05, rel=1e-6)
    assert (report.power_source, report.power_kind) == ("csv:meter.csv", "measured")
    assert report.power_hz == pytest.approx(10)


def test_a_trace_with_hardly_a_sample_of_the_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plug.csv"
    rows = [f"{1_800_000_000 + 60 * i},5.0" for i in range(10)]
    file.write_text("\n".join(["time,power_w", *rows]) + "\n")
    with pytest.raises(UsageError, match="too few samples"):
        with_power(invented.report(repeats=repeats(1_800_000_075.0)), read_trace(file), file)


def test_a_trace_of_no_power_is_no_figure(tmp_path: Path) -> None:
    file = tmp_path / "meter.csv"
    rows = [f"{1_800_000_000 + i / 10:.1f},0.0" for i in range(201)]
    file.write_text("\n".join(["time,power_w", *rows]) + "\n")
    with pytest.raises(UsageError, match=r"meter\.csv"):
        with_power(invented.report(repeats=repeats(1_800_000_005.0)), read_trace(file), file)


@pytest.mark.parametrize("begin", [1_799_999_999.0, 1_800_000_018.5, 1_700_000_000.0])
def test_a_trace_of_another_time_is_refused(begin: float, tmp_path: Path) -> None:
    file = ramp(tmp_path)
    with pytest.raises(UsageError, match="does not cover"):
        with_power(invented.report(repeats=repeats(begin)), read_trace(file), file)
