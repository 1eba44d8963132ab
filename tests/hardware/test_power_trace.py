"""CSV files of external meters: what is read, what is refused, and windows of a file that grows."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from musgd_cli.errors import UsageError
from musgd_cli.hardware.power import CsvMeter, Trace, read_trace
from musgd_cli.hardware.power.meter import FEWEST_SAMPLES

START = 1_795_000_000.0
"""2026-11-18 11:06:40 UTC."""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str) -> Path:
        path = tmp_path / "meter.csv"
        path.write_bytes(text.encode())
        return path

    return _write


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XXX+5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# ----------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "text",
    [
        "time,power_w\n1795000000,5.0\n1795000000.5,6.5\n",
        "time,power_w\n1795000000,5.0\n1795000000.5,6.5",  # no end of the last line
        "\ufefftimestamp,Power (mW)\r\n1795000000,5000\r\n1795000000.5,6500\r\n",
        "# a meter's own remark\n\ntime;P[W];note\n1795000000;5,0;a\n1795000000,5;6,5;b\n",
        "Unix\tWatts\n1795000000\t5.0\n1795000000.5\t6.5\n",
        "time_ms,voltage_v,current_ma\n1795000000000,5,1000\n1795000000500,5.2,1250\n",
        "n,time,mV,A\n1,1795000000,5000,1\n2,1795000000.5,5200,1.25\n",
        # Watts, where they are given, whatever else is measured.
        "time,V(V),I(A),P(W),D+(V)\n1795000000,5,0,5.0,0.6\n1795000000.5,5,0,6.5,0.6\n",
        'time,power_w\n"2026-11-18T11:06:40Z",5.0\n"2026-11-18T11:06:40.500Z",6.5\n',
        "datetime,watts\n2026-11-18 11:06:40,5.0\n2026-11-18 11:06:40.5,6.5\n",
        "datetime,watts\n2026-11-18T13:06:40+02:00,5.0\n2026-11-18T13:06:40.5+02:00,6.5\n",
        "datetime;watts\n2026-11-18T11:06:40,0;5,0\n2026-11-18T11:06:40,5;6,5\n",
    ],
)
@pytest.mark.usefixtures("far_from_utc")
def test_what_meters_write(text: str, write: Write) -> None:
    trace = read_trace(write(text))
    assert [at for at, _ in trace.samples] == pytest.approx([START, START + 0.5], abs=1e-6)
    assert [watts for _, watts in trace.samples] == pytest.approx([5.0, 6.5])
    assert trace.hz == pytest.approx(2.0)


def test_a_coarse_clock_gives_one_sample_a_tick(write: Write) -> None:
    rows = "".join(f"{int(START) + i // 4},{5 + i % 4}\n" for i in range(12))
    trace = read_trace(write(f"time,power_w\n{rows}"))
    assert trace.samples == ((START, 6.5), (START + 1, 6.5), (START + 2, 6.5))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("\n# nothing but a remark\n", "empty"),
        ("1795000000,5.0\n1795000001,5.0\n", "no columns of time"),
        ("power_w,elapsed_s\n5.0,1\n", "no columns of time"),
        ("date,time,power_w\n2026-11-18,11:06:40,5\n", "2 columns of time"),
        ("time,power\n1795000000,5.0\n", "watts"),  # of which unit?
        ("time,voltage_v\n1795000000,5.0\n", "amperes"),
        ("time,cpu_w,board_w\n1795000000,3.0,5.0\n", "not one column of watts"),
        ("time,in_v,out_v,current_a\n1795000000,5,5,1\n", "not one column of watts"),
        ("time,power_w\n1795000000,5.0\n1795000001\n", "line 3: too few columns"),
        ("time,power_w\n1795000000,\n", "line 2"),
        ("time,power_w\n1795000000,OL\n", "line 2"),
        ("time,power_w\n1795000000,nan\n", "line 2: nan W"),
        ("time,power_w\n1795000000,inf\n", "line 2: inf W"),
        ("time,power_w\n1795000000,1e9\n", "line 2"),
        # A shunt whose two ends were swapped.
        ("time,power_w\n1795000000,-5.0\n", "line 2: -5.0 W.*wrong way round"),
        ("time,voltage_v,current_a\n1795000000,5,-1\n", "line 2: -5.0 W.*wrong way round"),
        ("time,power_w\nyesterday,5.0\n", "line 2.*yesterday"),
        ("time,power_w\n12.5,5.0\n", "line 2: 12.5 is no time since 1970"),
        # Milliseconds that the header does not own up to.
        ("time,power_w\n1795000000000,5.0\n", "line 2.*no time since 1970"),
        ("time,power_w\nnan,5.0\n", "line 2: nan is no time"),
        ("time,power_w\n1795000001,5.0\n1795000000,5.0\n", "line 3.*before"),
    ],
)
def test_what_is_refused_in_words(text: str, words: str, write: Write) -> None:
    path = write(text)
    with pytest.raises(UsageError, match=words) as caught:
        read_trace(path)
    assert str(path) in caught.value.what
    assert "time,power_w" in caught.value.mend


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.csv cannot be read"):
        read_trace(tmp_path / "gone.csv")
    with pytest.raises(UsageError, match="cannot be read"):
        read_trace(tmp_path)


# -------------------------------------------------------------------------------------- the energy

powers = st.lists(st.floats(0.1, 1000), min_size=30, max_size=60)
shares = st.floats(0, 1)
firsts, middles, lasts = st.floats(0, 0.2), st.floats(0.4, 0.6), st.floats(0.8, 1)
"""Shares of a trace between any two of which lie samples enough."""


def even(watts: list[float], period_s: float = 0.1) -> Trace:
    return Trace(tuple((START + i * period_s, watt) for i, watt in enumerate(watts)))


def test_a_window_between_samples_by_hand() -> None:
    # 2 W rising to 5 W in three seconds, then 5 W.
    trace = even([2.0, 3.0, 4.0, 5.0, 5.0, 5.0, 5.0], period_s=1)
    # From 0.25 s (2.25 W) to 3 s (5 W), then two and a half seconds of 5 W.
    assert trace.energy_j(START + 0.25, START + 5.5) == pytest.approx(2.75 * 3.625 + 2.5 * 5)
    # From one sample to another.
    assert trace.energy_j(START + 1, START + 5) == pytest.approx(3.5 + 4.5 + 5 + 5)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (12.0, 14.0),  # between two samples: what lines join is the power of other work
        (58.0, 62.0),  # one
        (59.0, 241.0),  # four
        (60.0, 60.0),
    ],
)
def test_a_window_with_hardly_a_sample_in_it_has_no_figure(begin: float, end: float) -> None:
    once_a_minute = even([5.0] * 10, period_s=60)
    assert once_a_minute.energy_j(START + begin, START + end) is None
    assert once_a_minute.energy_j(START + begin, START + 301) is not None


@given(watts=powers, cuts=st.tuples(shares, shares))
def test_a_window_with_its_share_of_samples_has_one(
    watts: list[float], cuts: tuple[float, float]
) -> None:
    trace = even(watts)
    length_s = trace.samples[-1][0] - START
    begin, end = (START + share * length_s for share in sorted(cuts))
    inside = sum(begin <= at <= end for at, _ in trace.samples)
    assert (trace.energy_j(begin, end) is not None) == (inside >= FEWEST_SAMPLES)


def test_nothing_runs_on_no_energy() -> None:
    for watts in (0.0, -5.0):
        assert even([watts] * 21).energy_j(START, START + 2) is None


def test_a_replayed_run_within_1_percent() -> None:
    # 100 s of 5 W with a ripple of 1 W at 0.3 Hz, at 20 Hz, by a clock that jitters.
    omega = math.tau * 0.3
    times = [0.05 * i + 0.01 * math.sin(7.0 * i) for i in range(2001)]
    trace = Trace(tuple((START + t, 5 + math.sin(omega * t)) for t in times))
    begin, end = 3.21, 87.65
    by_hand = 5 * (end - begin) + (math.cos(omega * begin) - math.cos(omega * end)) / omega
    assert trace.energy_j(START + begin, START + end) == pytest.approx(by_hand, rel=0.01)


@given(watts=powers, cuts=st.tuples(firsts, middles, lasts))
def test_windows_that_adjoin_add_up(watts: list[float], cuts: tuple[float, float, float]) -> None:
    trace = even(watts)
    length_s = trace.samples[-1][0] - START
    begin, middle, end = (START + share * length_s for share in cuts)
    parts = [trace.energy_j(begin, middle), trace.energy_j(middle, end)]
    whole = trace.energy_j(begin, end)
    assert None not in parts and whole is not None
    assert sum(part or 0 for part in parts) == pytest.approx(whole, rel=1e-9, abs=1e-9)


@given(watts=powers, cuts=st.tuples(firsts, lasts))
def test_energy_lies_between_the_least_and_the_most(
    watts: list[float], cuts: tuple[float, float]
) -> None:
    trace = even(watts)
    length_s = trace.samples[-1][0] - START
    begin, end = (START + share * length_s for share in cuts)
    energy_j = trace.energy_j(begin, end)
    assert energy_j is not None
    seconds = end - begin
    assert min(watts) * seconds - 1e-6 <= energy_j <= max(watts) * seconds + 1e-6


@given(watts=st.lists(st.integers(1, 50_000), min_size=FEWEST_SAMPLES, max_size=20))
def test_a_unit_is_a_factor_and_nothing_more(
    watts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("units")
    energies = []
    for name, factor in (("power_mw", 1), ("power_w", 1000)):
        rows = "".join(f"{START + i},{watt / factor!r}\n" for i, watt in enumerate(watts))
        (folder / f"{name}.csv").write_text(f"time,{name}\n{rows}")
        trace = read_trace(folder / f"{name}.csv")
        energies.append(trace.energy_j(START, START + len(watts) - 1))
    assert energies[0] is not None
    assert energies[0] == pytest.approx(energies[1])


@given(
    # Four missing are five periods: the limit itself, to either side of which times round.
    missing=st.integers(1, 19).filter(lambda n: n != 4),
    cuts=st.tuples(shares, shares),
)
def test_a_gap_voids_the_windows_that_it_touches_and_no_other(
    missing: int, cuts: tuple[float, float]
) -> None:
    times = [0.1 * i for i in range(60) if not 20 <= i < 20 + missing]
    trace = Trace(tuple((START + t, 5.0) for t in times))
    begin, end = (5.9 * share for share in sorted(cuts))
    hole = (1.9, 0.1 * (20 + missing))
    assume(all(abs(cut - edge) > 1e-6 for cut in (begin, end) for edge in hole))
    touched = begin < hole[1] and end > hole[0] and missing >= 5
    assume(sum(begin <= t <= end for t in times) > FEWEST_SAMPLES)
    energy_j = trace.energy_j(START + begin, START + end)
    assert (energy_j is None) == touched
    if energy_j is not None:
        assert energy_j == pytest.approx(5 * (end - begin), abs=1e-5)


@pytest.mark.parametrize(
    ("begin", "end"), [(-0.01, 1.0), (1.0, 2.01), (-2.0, -1.0), (3.0, 4.0), (-1.0, 5.0)]
)
def test_a_window_that_is_not_covered(begin: float, end: float) -> None:
    assert even([5.0] * 21).energy_j(START + begin, START + end) is None
    assert even([5.0] * 21).energy_j(START, START + 2) == pytest.approx(10)


@pytest.mark.parametrize("samples", [(), ((START, 5.0),)])
def test_a_trace_of_nothing(samples: tuple[tuple[float, float], ...]) -> None:
    trace = Trace(samples)
    assert trace.hz is None
    assert trace.energy_j(START, START) is None


# --------------------------------------------------------------------------------------- the meter


@contextmanager
def external_meter(
    path: Path, *, hz: float = 20.0, block: int = 1, fault_s: float = math.inf, fault: str = ""
) -> Iterator[float]:
    """Write 4 W rising by 1 W a second, as a meter's program would, from half a second ago.

    Args:
        block: Lines written at once; the last of each block is written in two halves.
        fault_s: When ``fault`` is written in place of all that would follow.
    """
    started = time.time() - 0.5
    stop = threading.Event()
    path.write_text("time,power_w\n")

    def run() -> None:
        lines: list[str] = []
        i = 0
        while not stop.is_set():
            at = started + i / hz
            if at > time.time():
                stop.wait(at - time.time())
                continue
            if at - started > fault_s:
                with path.open("a") as file:
                    file.write(fault)
                return
            lines.append(f"{at:.6f},{4 + (at - started):.6f}\n")
            i += 1
            if len(lines) == block:
                text, lines = "".join(lines), []
                with path.open("a") as file:
                    file.write(text[:-4])
                    file.flush()
                    time.sleep(0.005)
                    file.write(text[-4:])

    writer = threading.Thread(target=run)
    writer.start()
    try:
        yield started
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("block", [1, 25])
def test_a_file_that_grows_meanwhile(block: int, tmp_path: Path) -> None:
    path = tmp_path / "usb.csv"
    with external_meter(path, block=block) as started:
        time.sleep(0.1)
        meter = CsvMeter(path)
        assert (meter.source, meter.scope, meter.kind) == ("csv:usb.csv", "board", "measured")
        for _ in range(2):
            before = time.time()
            meter.begin()
            time.sleep(0.5)
            reading = meter.end()
            assert reading is not None
            begin = before - started
            by_hand = 4 * reading.seconds + begin * reading.seconds + reading.seconds**2 / 2
            assert reading.energy_j == pytest.approx(by_hand, rel=0.01)
            assert 0.5 <= reading.seconds < 5
            assert reading.hz == pytest.approx(20, abs=1)
            assert (reading.source, reading.scope, reading.kind, reading.hz) == (
                "csv:usb.csv",
                "board",
                "measured",
                20.0,
            )


def test_a_meter_of_once_a_minute_keeps_its_rate_and_gives_no_figure_of_seconds(
    tmp_path: Path,
) -> None:
    path = tmp_path / "plug.csv"
    now = time.time()
    rows = "".join(f"{now + 60 * i:.3f},5.0\n" for i in range(-9, 3))
    path.write_text(f"time,power_w\n{rows}")
    meter = CsvMeter(path, patience_s=0.2)
    assert meter.hz == pytest.approx(1 / 60, rel=0.01)
    meter.begin()
    time.sleep(0.05)
    assert meter.end() is None


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "usb.csv"
    now = time.time()
    rows = [f"{now - 2 + i / 10},5.0\n" for i in range(100)]
    path.write_text("time,power_w\n" + "".join(rows[:20]) + rows[20][:-4])
    meter = CsvMeter(path, patience_s=0.2)
    meter.begin()
    with path.open("a") as file:
        file.write(rows[20][-4:] + "".join(rows[21:]))
    time.sleep(0.7)
    reading = meter.end()
    assert reading is not None
    assert reading.power_w == pytest.approx(5.0)


@pytest.mark.parametrize("fault", ["", "1795000000,5.0\n", "error,error\n"])
def test_a_meter_that_stops_in_the_window_gives_nothing(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "usb.csv"
    with external_meter(path, fault_s=1.0, fault=fault):
        meter = CsvMeter(path, patience_s=0.2)
        meter.begin()
        time.sleep(0.8)
        began_s = time.monotonic()
        assert meter.end() is None
        assert time.monotonic() - began_s < 2


def test_a_file_that_is_gone_in_the_window_gives_nothing(tmp_path: Path) -> None:
    path = tmp_path / "usb.csv"
    path.write_text("time,power_w\n")
    meter = CsvMeter(path, patience_s=0.2)
    meter.begin()
    path.unlink()
    assert meter.end() is None
    with pytest.raises(RuntimeError, match="begin"):
        meter.end()


def test_a_clock_that_is_set_in_the_window_voids_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "usb.csv"
    now = time.time()
    path.write_text("time,power_w\n" + "".join(f"{now - 1 + i / 20},5\n" for i in range(95)))
    meter = CsvMeter(path, patience_s=0.2)
    meter.begin()
    time.sleep(0.4)
    assert meter.end() is not None
    meter.begin()
    time.sleep(0.4)
    really = time.time
    monkeypatch.setattr("time.time", lambda: really() + 2)
    assert meter.end() is None


@pytest.mark.parametrize(("off_s", "words"), [(-7200, "ago"), (+7200, "ahead")])
def test_a_file_of_another_time_is_refused(off_s: float, words: str, tmp_path: Path) -> None:
    # An old file, or a meter whose clock shows the local time.
    path = tmp_path / "usb.csv"
    now = time.time() + off_s
    path.write_text("time,power_w\n" + "".join(f"{now + i},5\n" for i in range(3)))
    with pytest.raises(UsageError, match=words) as caught:
        CsvMeter(path)
    assert "UTC" in caught.value.mend
